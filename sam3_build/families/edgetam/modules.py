"""The networks of this family in PyTorch, from the model config. Runs in workers only.

The modules are those of transformers' EdgeTamVideoModel, under the same attribute names: state dict keys are checkpoint
keys. Only the trunk is written out, since transformers takes it from timm, and what points' labels add is four modules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

from sam3_build.families.edgetam import memory, repvit
from sam3_build.families.edgetam.config import FLAGS, KIND, backbone_config, part_of, static_dims, trunk_of
from sam3_build.spec import Json
from sam3_build.torch_modules import tracker
from sam3_build.torch_modules.config_keys import complete, refuse_unlike
from sam3_build.torch_modules.tracker_config import expected, split_labels
from sam3_build.torch_modules.wrapping import container, override

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import EdgeTamVideoConfig, EdgeTamVideoModel

# Sizes of the dynamic dims while tracing: all different, and none 0 or 1, which torch.export would take for constants.
DYNAMIC_SIZES = {"objects": 2, "points": 3, "memories": 4, "pointers": 5}


def modeling(name: str = KIND) -> ModuleType:
    """Return transformers' module. Through the package, it would ask for torchvision, which nothing here uses."""
    return import_module(f"transformers.models.{name}.modeling_{name}")


def complete_config(config: Mapping[str, Json]) -> dict[str, Json]:
    """Return the config with all that transformers would fill in; BuildError when it is no config of EdgeTAM."""
    completed = complete(
        _without_trunk(config),
        KIND,
        "EdgeTamVideoModel",
        edgetam_config,
        static_dims,
        lambda made: whole_model(_with_trunk(made, config)),
    )
    refuse_unlike(completed, _expected(static_dims(completed)))
    return _with_trunk(completed, config)


def _with_trunk(completed: Mapping[str, Json], config: Mapping[str, Json]) -> dict[str, Json]:
    vision = {**part_of(completed, "vision_config"), "backbone_config": backbone_config(*trunk_of(config))}
    return {**completed, "vision_config": vision}


def _without_trunk(config: Mapping[str, Json]) -> dict[str, Json]:
    """Return a config that transformers reads: it takes what timm says of a trunk only where timm is installed."""
    vision = {key: value for key, value in part_of(config, "vision_config").items() if key != "backbone_config"}
    return {**config, "vision_config": vision}


def _expected(dims: Mapping[str, int]) -> dict[str, Json]:
    """Return the values by path that fit to others, or that the host's code or the key tables have as constants."""
    return {
        **expected(dims),
        "vision_config.backbone_feature_sizes": [[scale * dims["grid"]] * 2 for scale in (4, 2, 1)],
        "vision_config.num_feature_levels": 3,
        "perceiver_resampler_hidden_size": 64,
        "perceiver_resampler_num_layers": 2,
        "memory_attention_rope_k_sizes": [dims["latent_side"]] * 2,
        "max_cond_frame_num": -1,
        **dict.fromkeys(FLAGS, False),
    }


def edgetam_config(config: Mapping[str, Json]) -> EdgeTamVideoConfig:
    """Return transformers' configuration object, but for the trunk; attention is written out, which exports better."""
    from transformers import EdgeTamVideoConfig

    parsed = EdgeTamVideoConfig.from_dict(_without_trunk(config))
    parsed._attn_implementation = "eager"
    return parsed


def vision_encoder(config: Mapping[str, Json]) -> nn.Module:
    """Return the trunk and transformers' neck; what it returns has `fpn_hidden_states`, from the finest map on."""
    trunk, vision = repvit.trunk(*trunk_of(config)), edgetam_config(config).vision_config
    neck = modeling("edgetam").EdgeTamVisionNeck(vision)

    def forward(pixel_values: Tensor) -> SimpleNamespace:
        maps, _ = neck([features.permute(0, 2, 3, 1) for features in trunk(pixel_values)])
        return SimpleNamespace(fpn_hidden_states=maps[-vision.num_feature_levels :][::-1])

    return override(container(backbone=container(timm_model=trunk), neck=neck), forward)


def whole(config: Mapping[str, Json]) -> EdgeTamVideoModel:
    """Return transformers' EdgeTamVideoModel on torch's meta device, our trunk in it, point labels in four modules."""
    import torch

    parsed, hidden = edgetam_config(config), static_dims(config)["hidden_size"]
    # It makes its vision encoder by timm; so it makes SAM 2's, which ours replaces.
    parsed.vision_config = edgetam_config({"vision_config": {"fpn_hidden_size": hidden}}).vision_config
    with torch.device("meta"):
        model = modeling().EdgeTamVideoModel(parsed)
        model.vision_encoder = vision_encoder(config)
        split_labels(model.prompt_encoder)
    return model


def whole_model(config: Mapping[str, Json]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all of EdgeTamVideoModel. What no component needs may be in a file."""
    return {key: tuple(tensor.shape) for key, tensor in whole(config).state_dict().items()}


def skeleton(network: str, config: Mapping[str, Json]) -> nn.Module:
    """Return `network` on torch's meta device: names and shapes, no weights."""
    builders: Mapping[str, Callable[[EdgeTamVideoModel, Mapping[str, int]], nn.Module]] = {
        "vision_encoder": tracker.vision_encoder,
        "mask_prompt": tracker.mask_prompt,
        "mask_decoder": tracker.mask_decoder,
        "memory_attention": memory.memory_attention,
        "memory_encoder": memory.memory_encoder,
    }
    return builders[network](whole(config), static_dims(config))


def compute_tables(model: nn.Module) -> None:
    """Compute nothing: tables are made with the modules."""

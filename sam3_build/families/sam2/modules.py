"""The networks of this family in PyTorch, from the model config. Runs in workers only.

The modules are those of transformers' Sam2VideoModel, under the same attribute names: state dict keys are checkpoint
keys. Only what points' labels add is four modules and not one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError
from sam3_build.families.sam2 import deepstream
from sam3_build.families.sam2.config import ADVICE, KIND, OLD, static_dims
from sam3_build.spec import Json
from sam3_build.torch_modules import tracker
from sam3_build.torch_modules.config_keys import complete, refuse_unlike
from sam3_build.torch_modules.tracker_config import expected, split_labels

if TYPE_CHECKING:
    from torch import nn
    from transformers import Sam2VideoConfig, Sam2VideoModel

# Sizes of the dynamic dims while tracing: all different, and none 0 or 1, which torch.export would take for constants.
# Places are traced as many as those of four memories of the published models, which smaller ones fit into.
DYNAMIC_SIZES = {"batch": 2, "num_points": 3, "num": 5, "buff_size": 4, "buff_size_embed": 4 * 4096 + 20}
DYNAMIC_SIZES |= {"objects": 2, "points": 3, "memories": 4, "pointers": 5}


def modeling() -> ModuleType:
    """Return transformers' module. Through the package, it would ask for torchvision, which nothing here uses."""
    return import_module("transformers.models.sam2_video.modeling_sam2_video")


def complete_config(config: Mapping[str, Json]) -> dict[str, Json]:
    """Return the config with all that transformers would fill in; BuildError when it is no config of SAM 2.1."""
    completed = complete(config, KIND, "Sam2VideoModel", sam2_config, static_dims, whole_model)
    for key in ("enable_temporal_pos_encoding_for_object_pointers", "enable_occlusion_spatial_embedding"):
        if not completed[key]:
            raise BuildError(f"model config: {key} is false: this is {OLD}{key}; {ADVICE}")
    refuse_unlike(completed, {**expected(static_dims(completed)), "max_cond_frame_num": -1})
    return completed


def sam2_config(config: Mapping[str, Json]) -> Sam2VideoConfig:
    """Return transformers' configuration object; attention is written out, because fused attention exports worse."""
    from transformers import Sam2VideoConfig

    parsed = Sam2VideoConfig.from_dict(dict(config))
    parsed._attn_implementation = "eager"
    return parsed


def whole(config: Mapping[str, Json]) -> Sam2VideoModel:
    """Return transformers' Sam2VideoModel on torch's meta device, what labels of points add in four modules."""
    import torch

    with torch.device("meta"):
        model = modeling().Sam2VideoModel(sam2_config(config))
        split_labels(model.prompt_encoder)
    return model


def whole_model(config: Mapping[str, Json]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all of Sam2VideoModel. What no component needs may be in a file."""
    return {key: tuple(tensor.shape) for key, tensor in whole(config).state_dict().items()}


def skeleton(network: str, config: Mapping[str, Json]) -> nn.Module:
    """Return `network` on torch's meta device: names and shapes, no weights."""
    builders: Mapping[str, Callable[[Sam2VideoModel, Mapping[str, int]], nn.Module]] = {
        "image_encoder": deepstream.image_encoder,
        "mask_decoder": deepstream.mask_decoder,
        "memory_attention": deepstream.memory_attention,
        "memory_encoder": deepstream.memory_encoder,
        "vision_encoder": tracker.vision_encoder,
        "mask_prompt": tracker.mask_prompt,
        "predictor_decoder": tracker.mask_decoder,
        "predictor_attention": tracker.memory_attention,
        "predictor_memory": tracker.memory_encoder,
    }
    return builders[network](whole(config), static_dims(config))


def compute_tables(model: nn.Module) -> None:
    """Compute nothing: tables are made with the modules."""

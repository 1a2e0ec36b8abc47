"""The networks of this family in PyTorch, from the model config. Runs in workers only.

The modules are those of transformers' Sam3VideoModel. The tracker's names are those that they have in its
`tracker_model`, with the vision encoder that SAM 3's detector and tracker share; what the detector alone has stands
behind `detector.`. What labels of points add is four modules and not one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, cast

from sam3_build.families.sam3_video.config import KIND, static_dims
from sam3_build.pipeline.tracking import PROMPTED
from sam3_build.spec import Json
from sam3_build.torch_modules import sam3, tracker
from sam3_build.torch_modules.clip_text import text_encoder
from sam3_build.torch_modules.config_keys import complete, refuse_unlike
from sam3_build.torch_modules.decoder import decoder
from sam3_build.torch_modules.geometry_encoder import geometry_encoder
from sam3_build.torch_modules.sam3 import compute_tables as compute_tables
from sam3_build.torch_modules.tracker_config import expected, split_labels
from sam3_build.torch_modules.wrapping import container, override

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import Sam2VideoModel, Sam3Config, Sam3VideoConfig

# Sizes of the dynamic dims while tracing: all different, and none 0 or 1, which torch.export would take for constants.
DYNAMIC_SIZES = {"objects": 2, "points": 3, "memories": 4, "pointers": 5}
DYNAMIC_SIZES |= {"batch": 2, "num_boxes": 3, "prompt_len": 37}

# Networks that the detector alone has.
DETECTOR: Mapping[str, Callable[[Sam3Config], nn.Module]] = {
    "text_encoder": text_encoder,
    "geometry_encoder": geometry_encoder,
    "decoder": decoder,
}

SHARED = "vision_encoder.backbone."


def modeling() -> ModuleType:
    """Return transformers' module of the tracker. Through the package, it would ask for torchvision."""
    return import_module("transformers.models.sam3_tracker_video.modeling_sam3_tracker_video")


def complete_config(config: Mapping[str, Json]) -> dict[str, Json]:
    """Return the config with all that transformers would fill in; BuildError when it is no config of this family."""
    completed = complete(config, KIND, "Sam3VideoModel", video_config, static_dims, whole_model)
    refuse_unlike(completed, _expected(completed))
    return completed


def _expected(config: Mapping[str, Json]) -> dict[str, Json]:
    """Return the values by path that fit to other sizes, or that the host's code has as constants."""
    dims = static_dims(config)
    grid, hidden = dims["grid"], dims["hidden_size"]
    values: dict[str, Json] = {
        **expected(dims),
        "vision_config.fpn_hidden_size": hidden,
        "vision_config.backbone_feature_sizes": [[scale * grid] * 2 for scale in (4, 2, 1)],
        "prompt_encoder_config.patch_size": dims["image_size"] // grid,
        "max_cond_frame_num": PROMPTED,
        "enable_occlusion_spatial_embedding": True,
        "enable_temporal_pos_encoding_for_object_pointers": True,
        "multimask_output_in_sam": True,
        "multimask_output_for_tracking": True,
        "multimask_min_pt_num": 0,
        "multimask_max_pt_num": 1,
    }
    return {f"tracker_config.{path}": value for path, value in values.items()} | {
        "detector_config.vision_config.fpn_hidden_size": hidden,
        "detector_config.detr_encoder_config.hidden_size": hidden,
    }


def video_config(config: Mapping[str, Json]) -> Sam3VideoConfig:
    """Return transformers' configuration object; attention is written out, because fused attention exports worse."""
    from transformers import Sam3VideoConfig

    parsed = Sam3VideoConfig.from_dict(dict(config))
    parsed._attn_implementation = "eager"
    return parsed


def whole(config: Mapping[str, Json]) -> Sam2VideoModel:
    """Return transformers' Sam3TrackerVideoModel on torch's meta device; its modules are those of SAM 2's.

    It has the detector's vision encoder, with the tracker's neck.
    """
    import torch

    parsed = video_config(config)
    with torch.device("meta"):
        model = modeling().Sam3TrackerVideoModel(parsed.tracker_config, remove_vision_encoder=True)
        model.vision_encoder = sam3.modeling().Sam3VisionModel(parsed.detector_config.vision_config)
        split_labels(model.prompt_encoder)
    return cast("Sam2VideoModel", model)


def whole_model(config: Mapping[str, Json]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all of Sam3VideoModel. What no component needs may be in a file."""
    detector = sam3.shapes_of_whole(video_config(config).detector_config)
    shapes = {key if key.startswith(SHARED) else f"detector.{key}": shape for key, shape in detector.items()}
    return shapes | {key: tuple(tensor.shape) for key, tensor in whole(config).state_dict().items()}


def skeleton(network: str, config: Mapping[str, Json]) -> nn.Module:
    """Return `network` on torch's meta device: names and shapes, no weights."""
    import torch

    name, _, reference = network.partition("_as_")
    if name == "vision_encoder":
        return vision_encoder(config, reference)
    if network in DETECTOR:
        with torch.device("meta"):
            part = DETECTOR[network](video_config(config).detector_config)
            return override(container(detector=part), part.forward)
    builders: Mapping[str, Callable[[Sam2VideoModel, Mapping[str, int]], nn.Module]] = {
        "mask_prompt": tracker.mask_prompt,
        "mask_decoder": tracker.mask_decoder,
        "memory_attention": tracker.memory_attention,
        "memory_encoder": tracker.memory_encoder,
    }
    return builders[network](whole(config), static_dims(config))


def vision_encoder(config: Mapping[str, Json], reference: str) -> nn.Module:
    """Return the network of one picture: the detector's maps and positions, then those of `tracker.vision_encoder`.

    Of both necks the coarsest level is left out: nothing reads it.
    """
    import torch

    model, vision = whole(config), video_config(config).detector_config.vision_config
    encoder, decoder = model.vision_encoder, model.mask_decoder
    if reference == "meta":
        sam3.normalise_as_meta(encoder.backbone)
    with torch.device("meta"):
        neck = sam3.modeling().Sam3VisionNeck(vision)
    for own in (neck, encoder.neck):
        own.fpn_layers = own.fpn_layers[:3]
    parts = container(
        vision_encoder=encoder,
        mask_decoder=container(conv_s0=decoder.conv_s0, conv_s1=decoder.conv_s1),
        detector=container(vision_encoder=container(neck=neck)),
    )
    parts.no_memory_embedding = model.no_memory_embedding

    def forward(pixel_values: Tensor) -> tuple[Tensor, ...]:
        cells = encoder.backbone(pixel_values).last_hidden_state
        side = pixel_values.shape[-1] // vision.backbone_config.patch_size
        grid = cells.transpose(1, 2).reshape(1, -1, side, side)
        maps, positions = neck(grid)
        finest, finer, features = encoder.neck(grid)[0]
        without = features + parts.get_parameter("no_memory_embedding").flatten()[:, None, None]
        return (*maps, positions[2], decoder.conv_s0(finest), decoder.conv_s1(finer), without, features)

    return override(parts, forward)

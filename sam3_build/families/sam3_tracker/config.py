"""Reads a model config: takes out the tracker's part, and the sizes that it fixes. No torch."""

from __future__ import annotations

from collections.abc import Mapping

from sam3_build.errors import BuildError
from sam3_build.pipeline.config_values import integer, require
from sam3_build.pipeline.predictor_networks import sizes
from sam3_build.spec import Json

KIND = "sam3_tracker"
BACKBONE = ("vision_config", "backbone_config")

# transformers' defaults, where a config leaves a size out.
IMAGE_SIZE, PATCH_SIZE, HIDDEN_SIZE = 1008, 14, 256


def tracker_config(config: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return the config of the tracker on pictures: the config itself, or the part of a video model's that is it.

    BuildError when it is the config of another model.
    """
    kind, inner = config.get("model_type"), config.get("tracker_config")
    if kind == "sam3_video" and isinstance(inner, Mapping):
        return tracker_config({"model_type": "sam3_tracker_video", **inner})
    if kind not in (KIND, "sam3_tracker_video"):
        lacks = " (and has no tracker_config)" if kind == "sam3_video" else ""
        expected = f"{KIND!r}, 'sam3_tracker_video' or 'sam3_video'"
        raise BuildError(f"model config: model_type should be {expected}, but is {kind!r}{lacks}")
    parts = ("vision_config", "prompt_encoder_config", "mask_decoder_config", "initializer_range")
    return {"model_type": KIND, **{name: config[name] for name in parts if name in config}}


def static_dims(config: Mapping[str, Json]) -> Mapping[str, int]:
    """Return the sizes that a Sam3TrackerConfig (as JSON) fixes, by names of tensor specs; BuildError if unfit.

    What the config leaves out is as in the published model.
    """
    size = integer(config, *BACKBONE, "image_size", usual=IMAGE_SIZE)
    patch = integer(config, *BACKBONE, "patch_size", usual=PATCH_SIZE)
    hidden = integer(config, "vision_config", "fpn_hidden_size", usual=HIDDEN_SIZE)
    require(config, size, "prompt_encoder_config", "image_size")
    require(config, patch, "prompt_encoder_config", "patch_size")
    require(config, hidden, "prompt_encoder_config", "hidden_size")
    require(config, hidden, "mask_decoder_config", "hidden_size")
    grid, rest = divmod(size, patch)
    if rest:
        raise BuildError(f"model config: image_size is {size}, no multiple of patch_size, {patch}")
    if hidden % 8:
        raise BuildError(f"model config: fpn_hidden_size is {hidden}, which should be a multiple of 8")
    return {
        **sizes(size, grid, hidden),
        "num_masks": integer(config, "mask_decoder_config", "num_multimask_outputs", usual=3),
    }


def largest_tensor(component: str, config: Mapping[str, Json]) -> int:
    """Return the bytes, in FP32, of the largest tensor inside a component for one row.

    Of the vision encoder these are attention scores: in every head each cell looks at every other one.
    """
    dims = static_dims(config)
    if component == "vision_encoder":
        return 4 * integer(config, *BACKBONE, "num_attention_heads", usual=16) * dims["grid"] ** 4
    return 4 * dims["hidden_4"] * dims["grid_4"] ** 2

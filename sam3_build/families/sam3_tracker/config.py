"""Reads a model config: takes out the tracker's part, and says how large its tensors are. No torch."""

from __future__ import annotations

from collections.abc import Mapping

from sam3_build.errors import BuildError
from sam3_build.pipeline import click_sizes
from sam3_build.pipeline.config_values import integer
from sam3_build.spec import Json

KIND = "sam3_tracker"


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


def largest_tensor(component: str, config: Mapping[str, Json]) -> int:
    """Return the bytes, in FP32, of the largest tensor inside a component for one row.

    Of the vision encoder these are attention scores: in every head each cell looks at every other one.
    """
    dims = click_sizes.static_dims(config)
    if component == "vision_encoder":
        return 4 * integer(config, *click_sizes.BACKBONE, "num_attention_heads", usual=16) * dims["grid"] ** 4
    return click_sizes.largest_tensor(dims)

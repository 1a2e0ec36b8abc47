"""Reads a model config: takes out the image model's part, fills in defaults, refuses what is no config of SAM 3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError
from sam3_build.pipeline.concept_sizes import static_dims
from sam3_build.spec import Json
from sam3_build.torch_modules.config_keys import complete
from sam3_build.torch_modules.sam3 import modeling

if TYPE_CHECKING:
    from transformers import Sam3Config


def complete_config(config: Mapping[str, Json]) -> dict[str, Json]:
    """Return the config with all that transformers would fill in, so that no default is relied on unseen.

    BuildError when it is no config of a SAM 3 model.
    """
    return complete(image_config(config), "sam3", "Sam3Model", sam3_config, static_dims, whole_model)


def sam3_config(config: Mapping[str, Json]) -> Sam3Config:
    """Return transformers' configuration object; attention is written out, because fused attention exports worse."""
    from transformers import Sam3Config

    parsed = Sam3Config.from_dict(dict(config))
    parsed._attn_implementation = "eager"
    return parsed


def whole_model(config: Mapping[str, Json]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all of Sam3Model. What no component needs may be in a file."""
    import torch

    with torch.device("meta"):
        model = modeling().Sam3Model(sam3_config(config))
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def image_config(config: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return the config of the image model: the config itself, or the part of a video model's that is its detector's.

    BuildError when it is the config of another model.
    """
    kind = config.get("model_type")
    if kind == "sam3":
        return config
    inner = config.get("detector_config")
    if kind == "sam3_video" and isinstance(inner, Mapping):
        return image_config({"model_type": "sam3", **inner})
    lacks = " (and has no detector_config)" if kind == "sam3_video" else ""
    raise BuildError(f"model config: model_type should be 'sam3' or 'sam3_video', but is {kind!r}{lacks}")

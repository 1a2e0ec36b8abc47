"""Reads a model config: takes out the image model's part, fills in defaults, refuses what is no config of SAM 3."""

from __future__ import annotations

from collections.abc import Mapping

from sam3_build.errors import BuildError
from sam3_build.pipeline.concept_sizes import static_dims
from sam3_build.spec import Json
from sam3_build.torch_modules.config_keys import complete
from sam3_build.torch_modules.sam3 import sam3_config as sam3_config
from sam3_build.torch_modules.sam3 import shapes_of_whole


def complete_config(config: Mapping[str, Json]) -> dict[str, Json]:
    """Return the config with all that transformers would fill in, so that no default is relied on unseen.

    BuildError when it is no config of a SAM 3 model.
    """
    return complete(image_config(config), "sam3", "Sam3Model", sam3_config, static_dims, whole_model)


def whole_model(config: Mapping[str, Json]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all of Sam3Model. What no component needs may be in a file."""
    return shapes_of_whole(sam3_config(config))


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

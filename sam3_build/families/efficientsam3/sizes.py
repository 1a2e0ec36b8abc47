"""The sizes that a config of this family fixes: those of SAM 3's detector, and those of its tracker on pictures."""

from __future__ import annotations

from collections.abc import Mapping

from sam3_build.errors import BuildError
from sam3_build.pipeline import click_sizes, concept_sizes
from sam3_build.pipeline.config_values import require
from sam3_build.spec import Json


def static_dims(config: Mapping[str, Json]) -> Mapping[str, int]:
    """Return the sizes that a complete config fixes, by the names that tensor specs use; BuildError if unfit."""
    detector = concept_sizes.static_dims(config)
    require(config, detector["hidden_size"], "vision_config", "fpn_hidden_size")
    heads = part_of(config, "tracker_config")
    return {**click_sizes.static_dims({**heads, "vision_config": config["vision_config"]}), **detector}


def largest_tensor(component: str, config: Mapping[str, Json]) -> int:
    """Return the bytes, in FP32, of the largest tensor inside a component for one row.

    The trunks compute none that is larger than the neck's finest map; the decoder is SAM 3's.
    """
    dims = static_dims(config)
    if component == "vision_encoder":
        return 4 * dims["hidden_size"] * dims["feat_0_height"] * dims["feat_0_width"]
    heads = ("prompt_encoder_mask_decoder", "mask_decoder")
    return click_sizes.largest_tensor(dims) if component in heads else concept_sizes.largest_tensor(component, config)


def part_of(config: Mapping[str, Json], key: str) -> Mapping[str, Json]:
    """Return a part of a config, empty where it is left out. BuildError when it is none."""
    part = config.get(key, {})
    if not isinstance(part, Mapping):
        raise BuildError(f"model config: {key} should be an object, but is {part!r}")
    return part

"""The sizes that a Sam3VideoConfig fixes: those of its detector, and those of its tracker. No torch."""

from __future__ import annotations

from collections.abc import Mapping

from sam3_build.errors import BuildError
from sam3_build.pipeline import concept_sizes
from sam3_build.pipeline.config_values import integer
from sam3_build.pipeline.predictor_networks import sizes
from sam3_build.spec import Json

KIND = "sam3_video"

# Those of the published model.
USUAL = {**sizes(image_size=1008, grid=72, hidden_size=256), "memory_size": 64, "time_codes": 7, "text_len": 32}


def static_dims(config: Mapping[str, Json]) -> Mapping[str, int]:
    """Return the sizes that a complete config fixes, by the names that tensor specs use; BuildError if unfit."""
    detector = concept_sizes.static_dims(part(config, "detector_config"))
    height, width, grid = detector["image_height"], detector["image_width"], detector["feat_2_height"]
    if height != width:
        raise BuildError(f"model config: pictures of {height} x {width} are not square, and those of the tracker are")
    return {
        **detector,
        **sizes(height, grid, integer(config, "tracker_config", "vision_config", "fpn_hidden_size")),
        "memory_size": integer(config, "tracker_config", "memory_encoder_output_channels"),
        "time_codes": integer(config, "tracker_config", "num_maskmem"),
    }


def part(config: Mapping[str, Json], name: str) -> Mapping[str, Json]:
    """Return the config of a part; empty where there is none."""
    found = config.get(name)
    return found if isinstance(found, Mapping) else {}


def largest_tensor(component: str, config: Mapping[str, Json]) -> int:
    """Return the bytes, in FP32, of the largest tensor inside a component for one row.

    That of the memory attention are its scores, each cell looking at every cell of all memories; also of the encoder.
    """
    dims = static_dims(config)
    if component == "memory_attention":
        return 4 * dims["cells"] ** 2 * dims["time_codes"]
    own = concept_sizes.largest_tensor(component, part(config, "detector_config"))
    return max(own, 4 * dims["grid_16"] ** 2)

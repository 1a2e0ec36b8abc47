"""The sizes that a config of SAM 3's tracker on pictures fixes: of pictures, the grid of cells, masks. No torch."""

from __future__ import annotations

from collections.abc import Mapping

from sam3_build.errors import BuildError
from sam3_build.pipeline.config_values import integer, require
from sam3_build.pipeline.predictor_networks import sizes
from sam3_build.spec import Json

BACKBONE = ("vision_config", "backbone_config")

# transformers' defaults, where a config leaves a size out.
IMAGE_SIZE, PATCH_SIZE, HIDDEN_SIZE = 1008, 14, 256


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


def largest_tensor(dims: Mapping[str, int]) -> int:
    """Return the bytes, in FP32, of the largest tensor inside the heads for one row: the finest map."""
    return 4 * dims["hidden_4"] * dims["grid_4"] ** 2

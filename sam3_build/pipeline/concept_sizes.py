"""The sizes that a SAM 3 config fixes: of pictures, of the grid of patches, and of what follows from them.

transformers has a picture's size as one number, or as a pair. What it makes of a pair is the tables of positions in the
layers whose attention sees the whole grid, and there the pair is read as [width, height]
(`Sam3ViTLayer.precompute_positions`, 5.23); the other way round nothing fails, and the positions are wrong. Everywhere
else here, as in manifests, a size is height, width.
"""

from __future__ import annotations

from collections.abc import Mapping

from sam3_build.errors import BuildError
from sam3_build.pipeline.config_values import integer
from sam3_build.spec import Json

BACKBONE = ("vision_config", "backbone_config")

# What transformers takes where a config leaves it out.
PATCH_SIZE = 14


def static_dims(config: Mapping[str, Json]) -> Mapping[str, int]:
    """Return the sizes that a Sam3Config (as JSON) fixes, by the names that tensor specs use; BuildError if unfit."""
    patch = integer(config, *BACKBONE, "patch_size")
    height, width = _image_size(config)
    _require_patches((height, width), patch, "model config: image_size ")
    dims = {
        "image_height": height,
        "image_width": width,
        "hidden_size": integer(config, "detr_encoder_config", "hidden_size"),
        "text_len": integer(config, "text_config", "max_position_embeddings"),
        "num_queries": integer(config, "detr_decoder_config", "num_queries"),
    }
    # The neck's three levels have 4, 2 and 1 times the sides of the patch grid.
    for level, times in enumerate((4, 2, 1)):
        dims |= {f"feat_{level}_height": times * height // patch, f"feat_{level}_width": times * width // patch}
    return dims


def resized(config: Mapping[str, Json], size: tuple[int, int]) -> Mapping[str, Json]:
    """Return the config of the same model for pictures of another size; no weight depends on that.

    size: height and width in pixels. BuildError when they are no multiples of the patch size.
    """
    vision = _part(config, "vision_config")
    backbone = _part(vision, "backbone_config")
    patch = backbone.get("patch_size")
    _require_patches(size, patch if isinstance(patch, int) and patch > 0 else PATCH_SIZE)
    height, width = size
    image_size: Json = height if height == width else [width, height]
    return {**config, "vision_config": {**vision, "backbone_config": {**backbone, "image_size": image_size}}}


def largest_tensor(component: str, config: Mapping[str, Json]) -> int:
    """Return the bytes, in FP32, of the largest tensor inside a component for one row: its attention scores.

    In every head, each cell of the coarsest level looks at every other one.
    """
    heads = {
        "vision_encoder": (*BACKBONE, "num_attention_heads"),
        "decoder": ("detr_encoder_config", "num_attention_heads"),
        "detector": ("detr_encoder_config", "num_attention_heads"),
    }
    if component not in heads:
        return 0
    dims = static_dims(config)
    cells = dims["feat_2_height"] * dims["feat_2_width"]
    return 4 * cells * cells * integer(config, *heads[component])


def _image_size(config: Mapping[str, Json]) -> tuple[int, int]:
    """Return height and width."""
    given = _part(_part(config, "vision_config"), "backbone_config").get("image_size")
    sides = given if isinstance(given, list) and len(given) == 2 else [given, given]
    width, height = (side if isinstance(side, int) and not isinstance(side, bool) else 0 for side in sides)
    if min(height, width) < 1:
        raise BuildError(
            "model config: vision_config.backbone_config.image_size should be an integer of at least 1, or a pair "
            f"[width, height] of such, but is {given!r}"
        )
    return height, width


def _require_patches(size: tuple[int, int], patch: int, where: str = "") -> None:
    """Raise a BuildError that names the nearest sizes when a side of a picture is no multiple of the patch size."""
    height, width = size
    sides = {"": height} if height == width else {"height ": height, "width ": width}
    wrong = []
    for name, side in sides.items():
        patches, rest = divmod(side, patch)
        if rest:
            near = ", ".join(str(n * patch) for n in (patches, patches + 1) if n)
            wrong.append(f"{name}is {side}, no multiple of patch_size, {patch}; nearest: {near}")
    if wrong:
        raise BuildError(where + "; ".join(wrong))


def _part(config: Mapping[str, Json], key: str) -> Mapping[str, Json]:
    part = config.get(key)
    return part if isinstance(part, Mapping) else {}

"""Reads a model config: fills in the sizes that names stand for and SAM 3's defaults, refuses what is no config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sam3_build.documents import document_of
from sam3_build.errors import BuildError, did_you_mean
from sam3_build.families.efficientsam3.variants import text_config_of, trunk_of
from sam3_build.pipeline.concept_sizes import static_dims
from sam3_build.spec import Json
from sam3_build.torch_modules.config_keys import complete
from sam3_build.torch_modules.sam3 import sam3_config, shapes_of_whole

if TYPE_CHECKING:
    from transformers import Sam3Config

# What the detector takes of SAM 3's config; of its trunk only the size of the map, which the student's is brought to.
PARTS = (
    "vision_config",
    "geometry_encoder_config",
    "detr_encoder_config",
    "detr_decoder_config",
    "mask_decoder_config",
)
MAP = ("image_size", "patch_size", "hidden_size")


def complete_config(config: Mapping[str, Json]) -> dict[str, Json]:
    """Return the config with all that names and defaults stand for. BuildError when it is none of this family."""
    if config.get("model_type") != "efficientsam3":
        raise BuildError(f"model config: model_type should be 'efficientsam3', but is {config.get('model_type')!r}")
    known = ("model_type", "trunk", "text_config", *PARTS)
    if unknown := next((key for key in config if key not in known), None):
        raise BuildError(f"model config: unknown key {unknown!r}{did_you_mean(unknown, known)}")
    if missing := next((key for key in ("trunk", "text_config") if key not in config), None):
        raise BuildError(f"model config: {missing} is missing: a name, or sizes")
    kind, trunk = trunk_of(config["trunk"])
    parts = {key: config[key] for key in ("model_type", *PARTS) if key in config}
    given = complete(
        parts, "efficientsam3", "EfficientSAM3", detector_config, lambda c: shapes_of_whole(detector_config(c))
    )
    vision = given["vision_config"]
    assert isinstance(vision, Mapping) and isinstance(vision["backbone_config"], Mapping)
    backbone: Json = {key: vision["backbone_config"][key] for key in MAP}
    completed: dict[str, Json] = {
        "model_type": "efficientsam3",
        "trunk": {"type": kind, **document_of(trunk)},
        "text_config": dict(vars(text_config_of(config["text_config"]))),
        **{key: given[key] for key in PARTS},
        "vision_config": {**vision, "backbone_config": backbone},
    }
    static_dims(completed)
    return completed


def _detector_shapes(config: Mapping[str, Json]) -> dict[str, tuple[int, ...]]:
    return shapes_of_whole(detector_config(config))


def detector_config(config: Mapping[str, Json]) -> Sam3Config:
    """Return SAM 3's config with the parts that the detector has of it; its trunk has one layer, which nothing uses."""
    parts = {key: config[key] for key in PARTS if key in config}
    vision = parts.get("vision_config", {})
    assert isinstance(vision, Mapping)
    own = vision.get("backbone_config", {})
    assert isinstance(own, Mapping)
    trunk: Json = {"model_type": "sam3_vit_model", **own, "num_hidden_layers": 1, "global_attn_indexes": [0]}
    return sam3_config({"model_type": "sam3", **parts, "vision_config": {**vision, "backbone_config": trunk}})

"""Reads a model config: fills in the sizes that names stand for and SAM 3's defaults, refuses what is no config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from sam3_build.documents import document_of
from sam3_build.errors import BuildError, did_you_mean
from sam3_build.families.efficientsam3.sizes import part_of, static_dims
from sam3_build.families.efficientsam3.variants import text_config_of, trunk_of
from sam3_build.spec import Json
from sam3_build.torch_modules import click_networks
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

# The parts of `tracker_config`: what the heads for clicks take of the config of SAM 3's tracker.
HEADS = ("prompt_encoder_config", "mask_decoder_config")


def complete_config(config: Mapping[str, Json]) -> dict[str, Json]:
    """Return the config with all that names and defaults stand for. BuildError when it is none of this family."""
    if config.get("model_type") != "efficientsam3":
        raise BuildError(f"model config: model_type should be 'efficientsam3', but is {config.get('model_type')!r}")
    _refuse_unknown(config, ("model_type", "trunk", "text_config", "tracker_config", *PARTS))
    if missing := next((key for key in ("trunk", "text_config") if key not in config), None):
        raise BuildError(f"model config: {missing} is missing: a name, or sizes")
    kind, trunk = trunk_of(config["trunk"])
    parts = {key: config[key] for key in ("model_type", *PARTS) if key in config}
    given = complete(
        parts, "efficientsam3", "EfficientSAM3", detector_config, lambda c: shapes_of_whole(detector_config(c))
    )
    vision = part_of(given, "vision_config")
    backbone: Json = {key: part_of(vision, "backbone_config")[key] for key in MAP}
    completed: dict[str, Json] = {
        "model_type": "efficientsam3",
        "trunk": {"type": kind, **document_of(trunk)},
        "text_config": dict(vars(text_config_of(config["text_config"]))),
        **{key: given[key] for key in PARTS},
        "vision_config": {**vision, "backbone_config": backbone},
        "tracker_config": part_of(config, "tracker_config"),
    }
    _refuse_unknown(part_of(config, "tracker_config"), HEADS, "tracker_config.")
    heads = complete(tracker_config(completed), "sam3_tracker", "tracker", click_networks.parsed, click_networks.whole)
    completed["tracker_config"] = {key: heads[key] for key in HEADS}
    static_dims(completed)
    return completed


def _refuse_unknown(config: Mapping[str, Json], known: Iterable[str], path: str = "") -> None:
    if unknown := next((key for key in config if key not in known), None):
        raise BuildError(f"model config: unknown key {path + unknown!r}{did_you_mean(unknown, known)}")


def detector_config(config: Mapping[str, Json]) -> Sam3Config:
    """Return SAM 3's config with the parts that the detector has of it; its trunk has one layer, which nothing uses."""
    parts = {key: config[key] for key in PARTS if key in config}
    vision = part_of(config, "vision_config")
    own = part_of(vision, "backbone_config")
    trunk: Json = {"model_type": "sam3_vit_model", **own, "num_hidden_layers": 1, "global_attn_indexes": [0]}
    return sam3_config({"model_type": "sam3", **parts, "vision_config": {**vision, "backbone_config": trunk}})


def tracker_config(config: Mapping[str, Json]) -> dict[str, Json]:
    """Return the config, as JSON, of SAM 3's tracker with these heads, and a neck as the detector's behind its trunk.

    Sizes that `tracker_config` leaves out are those of the neck.
    """
    vision: dict[str, Json] = detector_config(config).vision_config.to_dict()
    backbone, heads = part_of(vision, "backbone_config"), part_of(config, "tracker_config")
    sides = {key: backbone[key] for key in ("image_size", "patch_size")}
    width: dict[str, Json] = {"hidden_size": vision["fpn_hidden_size"]}
    sizes = {"prompt_encoder_config": {**sides, **width}, "mask_decoder_config": width}
    parts: dict[str, Json] = {key: {**sizes[key], **part_of(heads, key)} for key in HEADS}
    return {"model_type": "sam3_tracker", "vision_config": vision, **parts}

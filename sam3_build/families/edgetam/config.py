"""Reads EdgeTAM's model config: its trunk, which transformers leaves to timm, and the dims that it fixes. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sam3_build.errors import BuildError
from sam3_build.pipeline.config_values import integer
from sam3_build.pipeline.predictor_networks import sizes
from sam3_build.spec import Json

KIND = "edgetam_video"

# Channels and blocks of each stage of the one trunk that was published.
ARCHITECTURE, WIDTHS, DEPTHS = "repvit_m1", (48, 96, 192, 384), (2, 2, 14, 2)

# The flags that transformers has on unless a config says otherwise.
FLAGS = ("enable_temporal_pos_encoding_for_object_pointers", "enable_occlusion_spatial_embedding")

# The model that was published: what it leaves out is transformers' default.
OFFICIAL: Mapping[str, Json] = {
    "model_type": KIND,
    "vision_config": {
        "model_type": "edgetam_vision_model",
        "backbone_config": {"model_type": "timm_wrapper", "architecture": ARCHITECTURE},
    },
    **dict.fromkeys(FLAGS, False),
}


def trunk_of(config: Mapping[str, Json]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return channels and blocks of each stage of the trunk. BuildError when it is none of EdgeTAM.

    What the config leaves out is not guessed: transformers would take the trunk of SAM 2, or of another model.
    """
    vision = part_of(config, "vision_config")
    backbone = part_of(vision, "backbone_config")
    for path, value, expected, otherwise in (
        ("model_type", vision.get("model_type"), "edgetam_vision_model", "SAM 2's Hiera"),
        ("backbone_config.model_type", backbone.get("model_type"), "timm_wrapper", "resnet50"),
        # A name of weights may follow: repvit_m1.dist_in1k.
        ("backbone_config.architecture", _name(backbone.get("architecture")), ARCHITECTURE, "resnet50"),
    ):
        if value is None:
            raise BuildError(
                f"model config: vision_config.{path} is missing, for which transformers takes {otherwise}; "
                f"EdgeTAM's is {expected}"
            )
        if value != expected:
            raise BuildError(f"model config: vision_config.{path} is {value!r}, which should be {expected!r}")
    given = part_of(backbone, "model_args")
    widths, depths = (_sizes(given, name, usual) for name, usual in (("embed_dim", WIDTHS), ("depth", DEPTHS)))
    if vision.get("backbone_channel_list", list(reversed(WIDTHS))) != list(reversed(widths)):
        raise BuildError(
            f"model config: vision_config.backbone_channel_list is {vision.get('backbone_channel_list')}, "
            f"but the trunk's stages have {list(reversed(widths))}"
        )
    return widths, depths


def backbone_config(widths: tuple[int, ...], depths: tuple[int, ...]) -> dict[str, Json]:
    """Return the part of a config that says what a trunk is, as timm would take it."""
    sizes: dict[str, Json] = {"embed_dim": list(widths), "depth": list(depths)}
    return {"model_type": "timm_wrapper", "architecture": ARCHITECTURE, "model_args": sizes}


def static_dims(config: Mapping[str, Json]) -> Mapping[str, int]:
    """Return the sizes that an EdgeTamVideoConfig (as JSON) fixes, by names of tensor specs; BuildError if unfit.

    What the config leaves out is as in the published model.
    """
    size = integer(config, "image_size", usual=1024)
    hidden = integer(config, "vision_config", "fpn_hidden_size", usual=256)
    memory = integer(config, "memory_encoder_output_channels", usual=64)
    of_map = integer(config, "perceiver_resampler_num_latents", usual=256)
    of_windows = integer(config, "perceiver_resampler_num_latents_2d", usual=256)
    (grid, rest), side = divmod(size, 16), math.isqrt(of_windows)
    if rest or hidden % 8 or hidden % memory:
        raise BuildError(
            f"model config: image_size is {size}, which should be a multiple of 16, and fpn_hidden_size {hidden}, of 8 "
            f"and of memory_encoder_output_channels, {memory}"
        )
    if side * side != of_windows or grid % side:
        raise BuildError(
            f"model config: perceiver_resampler_num_latents_2d is {of_windows}, which should be n * n for n * n "
            f"windows of {grid} x {grid} cells"
        )
    return {
        **sizes(size, grid, hidden),
        "memory_size": memory,
        "time_codes": integer(config, "num_maskmem", usual=7),
        "latents": of_map + of_windows,
        "latent_side": side,
    }


def part_of(config: Mapping[str, Json], name: str) -> Mapping[str, Json]:
    """Return a part of a config, empty where it has none."""
    value = config.get(name)
    return value if isinstance(value, Mapping) else {}


def _name(value: Json) -> Json:
    return value.partition(".")[0] if isinstance(value, str) else value


def _sizes(given: Mapping[str, Json], name: str, usual: tuple[int, ...]) -> tuple[int, ...]:
    sizes = given.get(name)
    if sizes is None:
        return usual
    if not isinstance(sizes, list) or len(sizes) != len(usual) or not all(isinstance(n, int) and n > 0 for n in sizes):
        raise BuildError(
            f"model config: vision_config.backbone_config.model_args.{name} should be {len(usual)} numbers, one for "
            f"each stage, but is {sizes}"
        )
    return tuple(n for n in sizes if isinstance(n, int))

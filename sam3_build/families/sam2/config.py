"""Sizes of SAM 2.1: tells the published ones apart by shapes, and which dims a model config fixes. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sam3_build.errors import BuildError
from sam3_build.pipeline.config_values import integer, published
from sam3_build.pipeline.predictor_networks import sizes
from sam3_build.spec import Json

KIND = "sam2_video"

# What only 2.1 has: the time of a pointer, and a mark of memories in which the object was hidden.
NEW = ("temporal_positional_encoding_projection_layer.weight", "occlusion_spatial_embedding_parameter")
OLD = "SAM 2.0, without times of object pointers and marks of hidden objects; NVIDIA's memory attention needs them: "
ADVICE = "take the SAM 2.1 checkpoint of the same size"


@dataclass(frozen=True)
class Size:
    """What tells a published size from the others: its trunk. `background` is the side of the table of positions."""

    width: int
    heads: int
    blocks: tuple[int, int, int, int]
    attend_globally: tuple[int, int, int]
    window: int = 14
    background: int = 7

    def config(self) -> dict[str, Json]:
        """Return the model config; what it leaves out is the same for all, and transformers' default."""
        widths = [self.width * 2**stage for stage in range(4)]
        trunk: dict[str, Json] = {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": self.width,
            "num_attention_heads": self.heads,
            "embed_dim_per_stage": widths,
            "num_attention_heads_per_stage": [self.heads * 2**stage for stage in range(4)],
            "blocks_per_stage": list(self.blocks),
            "global_attention_blocks": list(self.attend_globally),
            "window_size_per_stage": [8, 4, self.window, self.window // 2],
            "window_positional_embedding_background_size": [self.background, self.background],
        }
        vision: dict[str, Json] = {
            "model_type": "sam2_vision_model",
            "backbone_config": trunk,
            "backbone_channel_list": widths[::-1],
        }
        return {"model_type": KIND, "vision_config": vision}


# Source: the files of sam2/configs/sam2.1 in facebookresearch/sam2.
SIZES = {
    "tiny": Size(96, 1, (1, 2, 7, 2), (5, 7, 9)),
    "small": Size(96, 1, (1, 2, 11, 2), (7, 10, 13)),
    "base_plus": Size(112, 2, (2, 3, 16, 3), (12, 16, 20), background=14),
    "large": Size(144, 2, (2, 6, 36, 4), (23, 33, 43), window=16),
}


def config_of(shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, Json]:
    """Return the config of an official file, read from shapes of its tensors by our names; BuildError without one."""
    if missing := [name for name in NEW if name not in shapes]:
        raise BuildError(f"this is {OLD}{', '.join(missing)}; {ADVICE}")
    known = {name: (size.width, sum(size.blocks)) for name, size in SIZES.items()}
    trunk = "vision_encoder.backbone."
    return SIZES[published(shapes, f"{trunk}patch_embed.projection.weight", f"{trunk}blocks.", known)].config()


def static_dims(config: Mapping[str, Json]) -> Mapping[str, int]:
    """Return the sizes that a Sam2VideoConfig (as JSON) fixes, by the names that tensor specs use; BuildError if unfit.

    What the config leaves out is as in all published models.
    """
    size = integer(config, "image_size", usual=1024)
    hidden = integer(config, "vision_config", "fpn_hidden_size", usual=256)
    memory = integer(config, "memory_encoder_output_channels", usual=64)
    memories = integer(config, "num_maskmem", usual=7)
    grid, rest = divmod(size, 16)
    if rest:
        raise BuildError(f"model config: image_size is {size}, no multiple of 16")
    if hidden % 8 or hidden % memory:
        raise BuildError(
            f"model config: fpn_hidden_size is {hidden}, which should be a multiple of 8 and of "
            f"memory_encoder_output_channels, {memory}"
        )
    return {
        **sizes(size, grid, hidden),
        "memory_size": memory,
        "time_codes": memories,
    }

"""What transformers' config and model of a tracker of SAM 2's kind must be for the code that all of these share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sam3_build.pipeline.tracked_frame import BIAS, SCALE
from sam3_build.pipeline.tracking import MASKS, POINTERS
from sam3_build.spec import Json

if TYPE_CHECKING:
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoPromptEncoder


def expected(dims: Mapping[str, int]) -> dict[str, Json]:
    """Return the values by path that fit to other sizes, or that the host's code has as constants."""
    hidden = dims["hidden_size"]
    return {
        "prompt_encoder_config.image_size": dims["image_size"],
        "prompt_encoder_config.hidden_size": hidden,
        "mask_decoder_config.hidden_size": hidden,
        "memory_attention_hidden_size": hidden,
        "memory_encoder_hidden_size": hidden,
        "memory_encoder_output_channels": 64,
        "memory_attention_rope_feat_sizes": [dims["grid"]] * 2,
        "memory_attention_num_attention_heads": 1,
        "memory_attention_downsample_rate": 1,
        "num_maskmem": MASKS,
        "max_object_pointers_in_encoder": POINTERS,
        "sigmoid_scale_for_mem_enc": SCALE,
        "sigmoid_bias_for_mem_enc": BIAS,
    }


def split_labels(encoder: Sam2VideoPromptEncoder) -> None:
    """Make what labels of points add one module for each label, as it is in Meta's files."""
    from torch import nn

    kinds, channels = encoder.point_embed.weight.shape
    encoder.point_embed = nn.ModuleList(nn.Embedding(1, channels) for _ in range(kinds))

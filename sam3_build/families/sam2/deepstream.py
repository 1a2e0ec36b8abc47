"""SAM 2.1 cut as NVIDIA cuts it for DeepStream's MaskTracker: four networks that compute what NVIDIA's compute.

Source: sam2-onnx-tensorrt in NVIDIA-AI-IOT/deepstream_tools. What is particular to it is said where it is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sam3_build.pipeline.tracked_frame import BIAS, SCALE
from sam3_build.torch_modules import memory, sam_decoder, sam_prompts, tracker
from sam3_build.torch_modules.wrapping import container, named, override

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import Sam2VideoModel

# A pointer's time is its distance in frames by this, however long the clip is.
LONGEST = 15.0


def image_encoder(model: Sam2VideoModel, dims: Mapping[str, int]) -> nn.Module:
    """Return the network of one picture: features, two finer maps, features without a memory, positions."""
    import torch
    from torch import nn

    parts = tracker.vision_encoder(model, dims)
    encode = parts.forward
    with torch.device("cpu"):
        table = memory.sine_table(dims["grid"], dims["hidden_size"])[:, None]
    parts.positions = nn.Buffer(table, persistent=False)

    def forward(image: Tensor) -> tuple[Tensor, ...]:
        finest, finer, without, features = encode(image)
        return features, finest, finer, without, parts.get_buffer("positions")

    return override(parts, forward)


def mask_decoder(model: Sam2VideoModel, dims: Mapping[str, int]) -> nn.Module:
    """Return the network of prompts: the best of three masks by their scores, for boxes too."""
    import torch
    from torch.nn import functional

    del model.prompt_encoder.mask_embed
    parts = tracker.decoder_parts(model, dims)
    size = (dims["image_size"],) * 2

    def forward(
        point_coords: Tensor,
        point_labels: Tensor,
        image_embed: Tensor,
        high_res_feats_0: Tensor,
        high_res_feats_1: Tensor,
    ) -> tuple[Tensor, ...]:
        # The point that pads a prompt is added here, not by the caller.
        points = functional.pad(point_coords, (0, 0, 0, 1))
        labels = functional.pad(point_labels, (0, 1), value=float(sam_prompts.NO_POINT))
        masks, scores, tokens, occlusion = tracker.candidates(
            model, points, labels, image_embed, (high_res_feats_0, high_res_feats_1)
        )
        best = sam_decoder.best_of_several(scores)
        is_visible = occlusion > 0
        mask = torch.where(is_visible[..., None], sam_decoder.picked(masks, best), tracker.HIDDEN)[:, None]
        enlarged = functional.interpolate(mask, size=size, mode="bilinear", align_corners=False)
        pointer = model.object_pointer_proj(sam_decoder.picked(tokens, best))
        return (
            torch.where(is_visible, pointer, parts.get_parameter("no_object_pointer")),
            enlarged.sigmoid() * SCALE + BIAS,
            mask,
            scores[:, 1:].amax(dim=1, keepdim=True),
            occlusion,
        )

    return override(parts, forward)


def memory_attention(model: Sam2VideoModel, dims: Mapping[str, int]) -> nn.Module:
    """Return the network of one conditioning frame, the first of the memories, and of those before the current one."""
    import torch

    attention, projection = model.memory_attention, model.temporal_positional_encoding_projection_layer
    encode = named(lambda pointers, first: memory.time_encoding(times(pointers, first), dims["hidden_size"]))
    parts = tracker.attention_parts(model, dims)
    parts.coordinates = encode
    parts.no_memory_embedding = model.no_memory_embedding
    cells, channels = dims["cells"], dims["memory_size"]

    def forward(
        current_vision_feat: Tensor,
        current_vision_pos_embed: Tensor,
        memory_0: Tensor,
        memory_1: Tensor,
        memory_pos_embed: Tensor,
        cond_frame_id_diff: Tensor,
    ) -> tuple[Tensor]:
        # The image encoder added what stands for no memory.
        features = current_vision_feat.flatten(2).transpose(1, 2) - parts.get_parameter("no_memory_embedding")
        x = (features + 0.1 * current_vision_pos_embed.transpose(0, 1)).expand(memory_0.shape[0], -1, -1)
        spatial = memory_1.flatten(3).transpose(2, 3)
        place = memory_pos_embed[:, : memory_1.shape[1] * cells].reshape(spatial.shape)
        pointers = memory_0.reshape(*memory_0.shape[:2], -1, channels)
        # What memory_pos_embed has for pointers is not read: times are made here, in the order of the pointers.
        timed = pointers + projection(encode(memory_0, cond_frame_id_diff))[:, None]
        for layer in attention.layers:
            x = layer(x, spatial, spatial + place, pointers.flatten(1, 2), timed.flatten(1, 2))
        return (attention.layer_norm(x).transpose(1, 2).unflatten(2, current_vision_feat.shape[2:]),)

    def times(pointers: Tensor, first: Tensor) -> Tensor:
        """Return [pointers]: the conditioning frame's distance, then 1, 2, and so on, by the longest."""
        steps = torch.arange(pointers.shape[1])
        return torch.where(steps == 0, first, steps.to(torch.float32)) / LONGEST

    return override(parts, forward)


def memory_encoder(model: Sam2VideoModel, dims: Mapping[str, int]) -> nn.Module:
    """Return the network that makes memories of masks; it squashes once more what the mask decoder squashed."""
    import torch
    from torch import nn

    encoder = model.memory_encoder
    parts = container(memory_encoder=encoder)
    parts.occlusion_spatial_embedding_parameter = model.occlusion_spatial_embedding_parameter
    parts.memory_temporal_positional_encoding = model.memory_temporal_positional_encoding
    with torch.device("cpu"):
        table = memory.sine_table(dims["grid"], dims["memory_size"])[None]
    parts.positions = nn.Buffer(table, persistent=False)

    def forward(mask_for_mem: Tensor, pix_feat: Tensor, occ_logit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = tracker.memory_features(parts, encoder, mask_for_mem.sigmoid() * SCALE + BIAS, pix_feat, occ_logit)
        place = parts.get_buffer("positions").expand(mask_for_mem.shape[0], -1, -1)
        # The parameter itself, and no copy of it: its output keeps the name that is declared.
        return features, place, parts.get_parameter("memory_temporal_positional_encoding")

    return override(parts, forward)

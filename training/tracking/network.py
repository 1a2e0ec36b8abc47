"""SAM 2's network around one set of parameters, with gradients: encode pictures, decode prompts, remember, attend.

transformers' own `Sam2VideoModel.forward` is for inference, one object at a time. Here its submodules take rows
of one object, put together as its `_single_frame_forward` and `_prepare_memory_conditioned_features` do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sam3_build.torch_modules import sam_decoder, sam_prompts

if TYPE_CHECKING:
    from sam3_build.spec import Json

# What a frame's logits are where a mask, and not the decoder, says what is meant.
CERTAIN = 10.0


class Levels(NamedTuple):
    """Features of pictures p, from fine to coarse: [p, c / 8, 4s, 4s], [p, c / 4, 2s, 2s], [p, c, s, s]."""

    fine: Tensor
    middle: Tensor
    coarse: Tensor

    def of(self, pictures: Tensor) -> Levels:
        """Return the features of each row's picture."""
        return Levels(self.fine[pictures], self.middle[pictures], self.coarse[pictures])


@dataclass(frozen=True)
class Answer:
    """What the decoder says of each row r.

    masks: [r, 4, 4s, 4s] logits; ious: [r, 4]; present: [r, 1] logit
    mask:  [r, 4s, 4s], the one that is taken; pointer: [r, c], as if the object were there
    """

    masks: Tensor
    ious: Tensor
    present: Tensor
    mask: Tensor
    pointer: Tensor


class Tracker(nn.Module):
    """A `Sam2VideoModel` whose parts can be trained. The keys of its weights are `model.` and transformers' own."""

    def __init__(self, config: Mapping[str, Json]) -> None:
        """Build it with random weights. config: the content of a config.json."""
        super().__init__()
        from transformers.models.sam2_video.configuration_sam2_video import Sam2VideoConfig
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoModel

        read = Sam2VideoConfig(**{key: value for key, value in config.items() if key != "model_type"})
        read._attn_implementation = "sdpa"
        self.model = Sam2VideoModel(read)
        self.config = read
        self.size = int(read.image_size)
        for module in self.model.modules():
            # transformers draws all of them with one deviation, which is too small for so narrow a network.
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                module.reset_parameters()
        # A position that stands for a picture's is one for all uses, as in the original.
        shared = self.model.shared_image_embedding.positional_embedding
        self.model.prompt_encoder.shared_embedding.positional_embedding = shared
        with torch.no_grad():
            nn.init.normal_(self.model.no_memory_embedding, std=0.02)
            nn.init.normal_(self.model.memory_temporal_positional_encoding, std=0.02)
            for block in self.model.memory_encoder.memory_fuser.layers:
                nn.init.constant_(block.scale, read.memory_fuser_layer_scale_init_value)

    def encode(self, images: Tensor) -> tuple[Levels, Tensor]:
        """Return features of pictures [p, 3, size, size], and those of the middle level before the decoder's part."""
        levels = self.model.vision_encoder(images, return_dict=True).fpn_hidden_states
        decoder = self.model.mask_decoder
        return Levels(decoder.conv_s0(levels[0]), decoder.conv_s1(levels[1]), levels[2]), levels[1]

    def without_memory(self, coarse: Tensor) -> Tensor:
        """Return what the decoder gets of features [r, c, s, s] where nothing is remembered."""
        features: Tensor = coarse + self.model.no_memory_embedding[0, 0, :, None, None]
        return features

    def decode(
        self, levels: Levels, features: Tensor, points: Tensor, labels: Tensor, mask: Tensor | None = None
    ) -> Answer:
        """Return the answer for each row.

        features: [r, c, s, s], with or without memory
        points:   [r, n, 2] float32, pixels of the network's input; labels: [r, n] float32
        mask:     [r, 1, 4s, 4s] logits of an earlier answer
        """
        model, rows = self.model, len(points)
        prompts = model.prompt_encoder
        padded = torch.cat([points, points.new_zeros(rows, 1, 2)], 1)
        marks = torch.cat([labels, labels.new_full((rows, 1), sam_prompts.NO_POINT)], 1)
        encoded = sam_prompts.point_encoding(prompts.shared_embedding, self.size)(padded)
        tokens = sam_prompts.point_tokens(
            encoded, marks, prompts.not_a_point_embed.weight, prompts.point_embed.weight.split(1)
        )
        if mask is None:
            dense = prompts.no_mask_embed.weight[..., None, None].expand_as(features)
        else:
            dense = prompts.mask_embed(mask)
        positions = sam_prompts.grid_encoding(model.shared_image_embedding.positional_embedding, features.shape[-1])
        masks, ious, outputs = sam_decoder.decode(
            model.mask_decoder,
            features + dense,
            positions,
            tokens,
            model.mask_decoder.obj_score_token.weight,
            (levels.fine, levels.middle),
        )
        present = model.mask_decoder.pred_obj_score_head(outputs[:, 0])
        meant = (labels != sam_prompts.NO_POINT).sum(1)
        several = sam_decoder.best_of_several(ious)
        one = sam_decoder.one_hot(torch.zeros(rows, 1, dtype=torch.int64), ious.shape[1])
        which = torch.where((meant <= 1)[:, None], several, one)
        token = sam_decoder.picked(outputs[:, 2:], which)
        return Answer(masks, ious, present, sam_decoder.picked(masks, which), model.object_pointer_proj(token))

    def from_mask(self, levels: Levels, masks: Tensor) -> Answer:
        """Return the answer that a given mask [r, 1, size, size] (0 or 1) is, with the decoder's pointer for it."""
        rows = len(masks)
        side = levels.fine.shape[-1]
        none = masks.new_zeros(rows, 1, 2), masks.new_full((rows, 1), float(sam_prompts.NO_POINT))
        answer = self.decode(levels, levels.coarse, *none, self.model.mask_downsample(masks))
        certain = functional.interpolate((2 * masks - 1) * CERTAIN, (side, side), mode="bilinear", antialias=True)
        return Answer(
            certain.expand(-1, answer.masks.shape[1], -1, -1),
            torch.ones_like(answer.ious),
            torch.full_like(answer.present, CERTAIN),
            certain[:, 0],
            answer.pointer,
        )

    def remember(self, coarse: Tensor, mask: Tensor, present: Tensor, *, binary: bool) -> Tensor:
        """Return the memory of a frame, [r, memory channels, s, s].

        mask: [r, 4s, 4s] logits; present: [r, 1], 1 where the object is there, else 0
        binary: whether it is cut at 0, as where it was prompted by points
        """
        model, config = self.model, self.config
        large = functional.interpolate(mask[:, None], (self.size, self.size), mode="bilinear", align_corners=False)
        cut = (large > 0).float() if binary else large.sigmoid()
        cut = torch.where(present[:, :, None, None] > 0.5, cut, 0.0)
        scaled = cut * config.sigmoid_scale_for_mem_enc + config.sigmoid_bias_for_mem_enc
        features, _ = model.memory_encoder(coarse, scaled)
        hidden: Tensor = (
            features + (1 - present)[..., None, None] * (model.occlusion_spatial_embedding_parameter[..., None, None])
        )
        return hidden

    def point_at(self, answer: Answer, present: Tensor) -> Tensor:
        """Return pointers [r, c], that of no object where it is not there."""
        pointer: Tensor = present * answer.pointer + (1 - present) * self.model.no_object_pointer
        return pointer

    def attend(
        self, coarse: Tensor, memories: Sequence[tuple[int, Tensor]], pointers: Sequence[tuple[int, Tensor]], span: int
    ) -> Tensor:
        """Return features [r, c, s, s] that know what is remembered.

        memories: (frames ago, or 0 for the prompted frame; [r, memory channels, s, s])
        pointers: (frames ago, [r, c]); span: by which these are divided
        """
        from transformers.models.sam2_video.modeling_sam2_video import get_1d_sine_pe

        model = self.model
        rows, channels, height, width = coarse.shape
        where = model.memory_encoder.position_encoding(memories[0][1].shape, coarse.device, coarse.dtype)
        keys = [memory.flatten(2).permute(2, 0, 1) for _, memory in memories]
        codes = [
            where.flatten(2).permute(2, 0, 1) + model.memory_temporal_positional_encoding[ago - 1]
            for ago, _ in memories
        ]
        ages = torch.tensor([float(ago) for ago, _ in pointers]) / span
        ages = model.temporal_positional_encoding_projection_layer(get_1d_sine_pe(ages, channels))
        splits = channels // model.mem_dim
        for age, (_, pointer) in zip(ages, pointers, strict=True):
            keys.append(pointer.reshape(rows, splits, model.mem_dim).transpose(0, 1))
            codes.append(age.expand(splits, rows, -1))
        sines = model.vision_encoder.neck.position_encoding(coarse[:1].shape, coarse.device, coarse.dtype)
        attended: Tensor = model.memory_attention(
            current_vision_features=coarse.flatten(2).permute(2, 0, 1),
            memory=torch.cat(keys),
            current_vision_position_embeddings=sines.flatten(2).permute(2, 0, 1),
            memory_posision_embeddings=torch.cat(codes),
            num_object_pointer_tokens=len(pointers) * splits,
        )
        # transformers' layers put a dim between rows and cells.
        return attended.reshape(rows, height * width, channels).transpose(1, 2).reshape(coarse.shape)

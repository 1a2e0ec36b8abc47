"""SAM 3's decoder: takes image features and a joined prompt, returns masks, boxes and scores of every query."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from sam3_build.torch_modules.sam3 import modeling
from sam3_build.torch_modules.wrapping import additive, container, drop_bias, named, override

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import Sam3Config
    from transformers.models.sam3.modeling_sam3 import Sam3DetrDecoder


def decoder(config: Sam3Config) -> nn.Module:
    """Return the component.

    fpn_feat_0..2 and fpn_pos_2 [batch, hidden, side, side], prompt_features [batch, tokens, hidden], prompt_mask
    [batch, tokens] -> masks [batch, queries, side of level 0, the same] (logits), boxes [batch, queries, 4] (xyxy,
    relative), logits [batch, queries], presence logits [batch, 1].

    Left out, because no output depends on them: the semantic head, and the pixel decoder's stages beyond the two that
    three feature levels need.
    """
    from torch import nn

    sam3 = modeling()
    detr_decoder = sam3.Sam3DetrDecoder(config.detr_decoder_config)
    drop_bias(detr_decoder.box_rpb_embed_x.layer2)
    drop_bias(detr_decoder.box_rpb_embed_y.layer2)
    detr_decoder.coordinates = container(
        start=named(lambda points: points.sigmoid()),
        sine=named(detr_decoder.position_encoding.encode_boxes),
        distances=named(edge_distances),
        refine=named(lambda boxes, offsets: (sam3.inverse_sigmoid(boxes) + offsets).sigmoid()),
        corners=named(sam3.box_cxcywh_to_xyxy),
    )
    mask_decoder = sam3.Sam3MaskDecoder(config.mask_decoder_config)
    mask_decoder.semantic_projection = nn.Identity()
    mask_decoder.pixel_decoder.conv_layers = mask_decoder.pixel_decoder.conv_layers[:2]
    mask_decoder.pixel_decoder.norms = mask_decoder.pixel_decoder.norms[:2]

    detr_encoder = sam3.Sam3DetrEncoder(config.detr_encoder_config)
    scoring = sam3.Sam3DotProductScoring(config)

    def forward(
        fpn_feat_0: Tensor,
        fpn_feat_1: Tensor,
        fpn_feat_2: Tensor,
        fpn_pos_2: Tensor,
        prompt_features: Tensor,
        prompt_mask: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        attention_mask = additive(prompt_mask)
        memory = detr_encoder(
            vision_features=[fpn_feat_2],
            text_features=prompt_features,
            vision_pos_embeds=[fpn_pos_2],
            text_mask=attention_mask,
        ).last_hidden_state
        queries, boxes, presence = detr_decoder(memory, fpn_pos_2, prompt_features, attention_mask)
        logits = scoring(queries[None], prompt_features, prompt_mask)[0].squeeze(-1)
        masks = mask_decoder(
            decoder_queries=queries,
            backbone_features=[fpn_feat_0, fpn_feat_1, fpn_feat_2],
            encoder_hidden_states=memory,
            prompt_features=prompt_features,
            prompt_mask=attention_mask,
        ).pred_masks
        return masks, boxes, logits, presence

    model = container(
        detr_encoder=detr_encoder,
        detr_decoder=override(detr_decoder, partial(refine_queries, detr_decoder)),
        mask_decoder=mask_decoder,
        dot_product_scoring=scoring,
    )
    for module in model.modules():
        if isinstance(module, sam3.Sam3Attention):
            drop_bias(module.k_proj)
    return override(model, forward)


def refine_queries(
    self: Sam3DetrDecoder, memory: Tensor, positions: Tensor, prompt: Tensor, attention_mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the last layer's queries [batch, queries, hidden], boxes [.., 4] (xyxy) and presence logits [batch, 1].

    `positions` is [batch, hidden, height, width]: its grid is known while tracing, where transformers reads it from a
    tensor. Only the last layer's boxes and presence are outputs, so only those are computed.
    """
    import torch
    from torch.nn.functional import pad

    batch, _, height, width = positions.shape
    memory_positions = positions.flatten(2).transpose(1, 2)
    boxes = self.coordinates.start(self.reference_points.weight).expand(batch, -1, -1)
    tokens = torch.cat([self.presence_token.weight, self.query_embed.weight]).expand(batch, -1, -1)
    for layer in self.layers:
        # How far a cell is from a box steers attention to it; the presence token in front attends to all alike.
        by_row, by_column = self.coordinates.distances(boxes, height, width)
        rows = self.box_rpb_embed_y(by_row).permute(0, 3, 1, 2)[..., None]
        columns = self.box_rpb_embed_x(by_column).permute(0, 3, 1, 2)[..., None, :]
        tokens = layer(
            tokens,
            query_pos=self.ref_point_head(self.coordinates.sine(boxes)),
            text_features=prompt,
            vision_features=memory,
            vision_pos_encoding=memory_positions,
            text_cross_attn_mask=attention_mask,
            vision_cross_attn_mask=pad((rows + columns).flatten(3), (0, 0, 1, 0)),
        )
        queries = self.output_layer_norm(tokens[:, 1:])
        boxes = self.coordinates.refine(boxes, self.box_head(queries))
    presence = self.presence_head(self.presence_layer_norm(tokens[:, :1])).squeeze(-1)
    limit = self.clamp_presence_logit_max_val
    return queries, self.coordinates.corners(boxes), presence.clamp(-limit, limit)


def edge_distances(boxes: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the signed logarithmic distances of every row to top and bottom, and of every column to left and right.

    `boxes` are [batch, queries, 4] (cxcywh, relative); the results [batch, queries, height or width, 2].
    """
    import torch

    left, top, right, bottom = modeling().box_cxcywh_to_xyxy(boxes).unbind(-1)

    def along(size: int, low: Tensor, high: Tensor) -> Tensor:
        cells = torch.arange(size, dtype=boxes.dtype, device=boxes.device)[:, None] / size
        distance = (cells - torch.stack([low, high], dim=-1)[:, :, None]) * 8
        return distance.sign() * (distance.abs() + 1.0).log2() / math.log2(8)

    return along(height, top, bottom), along(width, left, right)

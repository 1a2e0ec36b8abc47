"""SAM 3's geometry encoder: takes boxes, labels and image features, returns one token per box and a CLS token."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sam3_build.torch_modules.roi_align import bin_weights, pool
from sam3_build.torch_modules.sam3 import modeling
from sam3_build.torch_modules.wrapping import additive, container, drop_bias, named, override

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import Sam3Config
    from transformers.models.sam3.modeling_sam3 import Sam3GeometryEncoder


# The label of a box that counts as absent.
IGNORED_LABEL = -10


def geometry_encoder(config: Sam3Config) -> nn.Module:
    """Return the component.

    input_boxes [batch, boxes, 4] (cxcywh, relative), input_boxes_labels [batch, boxes] (1 positive, 0 negative, -10
    ignored), fpn_feat_2 and fpn_pos_2 [batch, hidden, height, width] -> geometry_features [batch, boxes + 1, hidden],
    geometry_mask [batch, boxes + 1]
    """
    encoder = modeling().Sam3GeometryEncoder(config.geometry_encoder_config)
    for layer in encoder.layers:
        drop_bias(layer.self_attn.k_proj)
        drop_bias(layer.cross_attn.k_proj)

    def sine(boxes: Tensor) -> Tensor:
        encoded: Tensor = encoder._encode_box_coordinates(*boxes.flatten(0, 1).unbind(-1))
        return encoded.view(*boxes.shape[:2], -1)

    def roi(boxes: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        left, top, right, bottom = modeling().box_cxcywh_to_xyxy(boxes).unbind(-1)
        rows = bin_weights(top * height, bottom * height, height, encoder.roi_size)
        return rows, bin_weights(left * width, right * width, width, encoder.roi_size)

    def forward(
        input_boxes: Tensor, input_boxes_labels: Tensor, fpn_feat_2: Tensor, fpn_pos_2: Tensor
    ) -> tuple[Tensor, Tensor]:
        features, mask = encoder(input_boxes, input_boxes_labels, fpn_feat_2, fpn_pos_2)
        return features, mask

    encoder.coordinates = container(sine=named(sine), roi=named(roi))
    return override(container(geometry_encoder=override(encoder, partial(encode, encoder))), forward)


def encode(
    self: Sam3GeometryEncoder, boxes: Tensor, labels: Tensor, features: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    """Return ([batch, boxes + 1, hidden], [batch, boxes + 1]): boxes in their order, CLS last and always valid.

    transformers packs the valid tokens of a row to its front with a scatter. Attention does not see an order, so plain
    concatenation gives the same valid tokens, and CLS a fixed place.
    """
    import torch

    batch, count = labels.shape
    height, width = features.shape[-2:]
    ignored = labels == IGNORED_LABEL

    tokens = self.boxes_direct_project(boxes)
    rows, columns = self.coordinates.roi(boxes, height, width)
    pooled = pool(self.vision_layer_norm(features.permute(0, 2, 3, 1)), rows, columns)
    tokens = tokens + self.boxes_pool_project(pooled).view(batch, count, self.hidden_size)
    tokens = tokens + self.boxes_pos_enc_project(self.coordinates.sine(boxes))
    tokens = self.label_embed(labels.masked_fill(ignored, 0)) + tokens

    cls = self.cls_embed.weight[None].expand(batch, -1, -1)
    mask = torch.cat([~ignored, torch.ones_like(ignored[:, :1])], dim=1)
    tokens = self.prompt_layer_norm(self.final_proj(torch.cat([tokens, cls], dim=1)))

    attention_mask = additive(mask)
    for layer in self.layers:
        tokens = layer(
            prompt_feats=tokens,
            vision_feats=features.flatten(2).transpose(1, 2),
            vision_pos_encoding=positions.flatten(2).transpose(1, 2),
            prompt_mask=attention_mask,
        )
    return self.output_layer_norm(tokens), mask

"""SAM 3's geometry encoder and decoder as one network, without the text encoder and with it.

Takes image features, text (encoded, or as token ids) and boxes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sam3_build.torch_modules.clip_text import text_encoder
from sam3_build.torch_modules.decoder import decoder
from sam3_build.torch_modules.geometry_encoder import geometry_encoder
from sam3_build.torch_modules.wrapping import container, override

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import Sam3Config


def whole_decoder(config: Sam3Config, *, cls_always: bool) -> nn.Module:
    """Return the geometry encoder and the decoder as one network, their modules under the names they have apart.

    A prompt without boxes comes as ignored boxes. Meta's code then still feeds the CLS token of the geometry encoder
    (`cls_always`); transformers skips that encoder, for which the token is masked: attention to it is 0, exactly.
    """
    import torch

    geometry, rest = geometry_encoder(config), decoder(config)
    encode, decode = geometry.forward, rest.forward

    def forward(
        fpn_feat_0: Tensor,
        fpn_feat_1: Tensor,
        fpn_feat_2: Tensor,
        fpn_pos_2: Tensor,
        text_features: Tensor,
        text_mask: Tensor,
        input_boxes: Tensor,
        input_boxes_labels: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        features, mask = encode(input_boxes, input_boxes_labels, fpn_feat_2, fpn_pos_2)
        if not cls_always:
            mask = mask & mask[:, :-1].any(dim=1, keepdim=True)
        prompt_features = torch.cat([text_features, features], dim=1)
        prompt_mask = torch.cat([text_mask, mask], dim=1)
        outputs: tuple[Tensor, Tensor, Tensor, Tensor] = decode(
            fpn_feat_0, fpn_feat_1, fpn_feat_2, fpn_pos_2, prompt_features, prompt_mask
        )
        return outputs

    return override(_joined(geometry, rest), forward)


def detector(config: Sam3Config, *, cls_always: bool) -> nn.Module:
    """Return the text encoder and `whole_decoder` as one network."""
    text, rest = text_encoder(config), whole_decoder(config, cls_always=cls_always)
    encode, decode = text.forward, rest.forward

    def forward(
        fpn_feat_0: Tensor,
        fpn_feat_1: Tensor,
        fpn_feat_2: Tensor,
        fpn_pos_2: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        input_boxes: Tensor,
        input_boxes_labels: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        encoded = encode(input_ids, attention_mask)
        outputs: tuple[Tensor, Tensor, Tensor, Tensor] = decode(
            fpn_feat_0, fpn_feat_1, fpn_feat_2, fpn_pos_2, *encoded, input_boxes, input_boxes_labels
        )
        return outputs

    return override(_joined(text, rest), forward)


def _joined(*networks: nn.Module) -> nn.Module:
    """Return a module with all children of these, under their names."""
    return container(**{name: module for network in networks for name, module in network.named_children()})

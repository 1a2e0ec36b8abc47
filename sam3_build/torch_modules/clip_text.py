"""CLIP's text encoder as SAM 3 has it: takes token ids and their mask, returns features of every token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sam3_build.torch_modules.wrapping import additive, container, drop_bias, override

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import Sam3Config


def text_encoder(config: Sam3Config) -> nn.Module:
    """Return the component. CLIP's own projection is left out: SAM 3 projects every token, not CLIP's pooled one."""
    import torch
    from torch import nn
    from transformers import CLIPTextModel

    text_model = CLIPTextModel(config.text_config)
    for layer in text_model.encoder.layers:
        drop_bias(layer.self_attn.k_proj)
    projection = nn.Linear(config.text_config.hidden_size, config.detr_encoder_config.hidden_size)

    def forward(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        length = input_ids.shape[1]
        valid = attention_mask.bool()
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        encoded = text_model(input_ids=input_ids, attention_mask=additive(valid[:, None, None, :] & causal))
        return projection(encoded.last_hidden_state), valid

    return override(container(text_encoder=container(text_model=text_model), text_projection=projection), forward)

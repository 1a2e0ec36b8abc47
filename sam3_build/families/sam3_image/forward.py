"""Builds a network, ready to export, from the model config and its tensors. Runs in workers only.

A network bears its component's name, unless what it computes depends on the reference (`ComponentSpec.networks`).

The modules are those of transformers' Sam3Model, under the same attribute names: state dict keys are checkpoint keys,
and the module paths that the exporter records are those a reader knows. What must compute differently gets another
`forward`; what a precision must keep apart gets a module path of its own (`coordinates`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from sam3_build.families.sam3_image.decoder import decoder
from sam3_build.families.sam3_image.family import FAMILY, IGNORED_LABEL
from sam3_build.families.sam3_image.geometry import geometry_encoder
from sam3_build.families.sam3_image.modules import additive, container, drop_bias, modeling, override
from sam3_build.families.sam3_image.whole_decoder import whole_decoder
from sam3_build.spec import Json

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import Sam3Config

# Sizes of the dynamic dims while tracing: all different, and none 0 or 1, which torch.export would take for constants.
DYNAMIC_SIZES = {"batch": 2, "num_boxes": 3, "prompt_len": 37}


def assemble(network: str, config: Mapping[str, Json], tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return `network` in evaluation mode with exactly these `tensors` as its weights, not copied.

    Nothing else is allocated: the modules are built on torch's meta device and take the tensors as they are.
    """
    model = skeleton(network, config)
    model.load_state_dict(dict(tensors), strict=True, assign=True)
    compute_tables(model)
    return model.eval().requires_grad_(requires_grad=False)


def trace_sizes(config: Mapping[str, Json]) -> dict[str, int]:
    """Return the size of every dim while tracing: static ones as they always are, dynamic ones as an example."""
    return {**FAMILY.static_dims(config), **DYNAMIC_SIZES}


def no_boxes(rows: int) -> dict[str, Tensor]:
    """Return the box inputs of so many prompts without boxes: one ignored box each."""
    import torch

    return {
        "input_boxes": torch.zeros(rows, 1, 4),
        "input_boxes_labels": torch.full((rows, 1), IGNORED_LABEL, dtype=torch.int64),
    }


def skeleton(network: str, config: Mapping[str, Json]) -> nn.Module:
    """Return `network` on torch's meta device: names and shapes, no weights."""
    import torch

    builders: Mapping[str, Callable[[Sam3Config], nn.Module]] = {
        "vision_encoder": vision_encoder,
        "text_encoder": text_encoder,
        "geometry_encoder": geometry_encoder,
        "decoder": decoder,
        "whole_decoder_as_meta": partial(whole_decoder, cls_always=True),
        "whole_decoder_as_hf": partial(whole_decoder, cls_always=False),
    }
    with torch.device("meta"):
        return builders[network](sam3_config(config))


def sam3_config(config: Mapping[str, Json]) -> Sam3Config:
    """Return transformers' configuration object; attention is written out, because fused attention exports worse."""
    from transformers import Sam3Config

    parsed = Sam3Config.from_dict(dict(config))
    parsed._attn_implementation = "eager"
    return parsed


def vision_encoder(config: Sam3Config) -> nn.Module:
    """Return the component. The neck's coarsest level is left out: SAM 3 computes it and uses it nowhere."""
    encoder = modeling().Sam3VisionModel(config.vision_config)
    encoder.neck.fpn_layers = encoder.neck.fpn_layers[:3]

    def forward(images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        encoded = encoder(images)
        return (*encoded.fpn_hidden_states, encoded.fpn_position_encoding[2])

    return override(container(vision_encoder=encoder), forward)


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


def compute_tables(model: nn.Module) -> None:
    """Compute on the CPU what is no weight and was built on the meta device: positions and rotation frequencies."""
    import torch
    from transformers.models.clip.modeling_clip import CLIPTextEmbeddings

    sam3 = modeling()
    for module in model.modules():
        if isinstance(module, sam3.Sam3ViTLayer):
            module.position_ids = module.precompute_positions(module.config, module.window_size)
            module.rotary_emb = sam3.Sam3ViTRotaryEmbedding(module.config)
        elif isinstance(module, CLIPTextEmbeddings):
            module.position_ids = torch.arange(module.position_embedding.num_embeddings)[None]
    left = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    assert not left, f"tables that compute_tables does not know: {left}"

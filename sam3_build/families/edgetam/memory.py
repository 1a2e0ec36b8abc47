"""What EdgeTAM remembers with: each memory is 256 latents of the whole map and 256 of its windows. Workers only.

The modules are those of transformers' EdgeTamVideoModel, whose own perceiver takes one object at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sam3_build.torch_modules import memory, tracker
from sam3_build.torch_modules.wrapping import container, override

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import EdgeTamVideoModel
    from transformers.models.edgetam_video.modeling_edgetam_video import (
        EdgeTamVideoPerceiverEncoderLayer,
        EdgeTamVideoPerceiverResampler,
    )


def memory_attention(model: EdgeTamVideoModel, dims: Mapping[str, int]) -> nn.Module:
    """Return the network that conditions features on memories and pointers of any number.

    Of a memory only latents of windows have a place, by which their keys are rotated. No pointer knows its time.
    """
    import torch
    from torch import nn

    side, count, channels = dims["latent_side"], dims["time_codes"], dims["memory_size"]
    attention, base = model.memory_attention, model.config.rope_parameters["rope_theta"]
    layers = nn.ModuleList(memory.memory_layer(layer, dims["grid"], base, side) for layer in attention.layers)
    parts = container(memory_attention=container(layers=layers, layer_norm=attention.layer_norm))
    parts.memory_temporal_positional_encoding = model.memory_temporal_positional_encoding
    with torch.device("cpu"):
        places, positions = (
            memory.sine_table(side, channels),
            0.1 * memory.sine_table(dims["grid"], dims["hidden_size"]),
        )
    parts.places, parts.positions = nn.Buffer(places, persistent=False), nn.Buffer(positions, persistent=False)
    split = dims["latents"] - side * side

    def forward(
        vision_features: Tensor, memory_features: Tensor, memory_offsets: Tensor, object_pointers: Tensor
    ) -> tuple[Tensor]:
        x = vision_features.flatten(2).transpose(1, 2) + parts.get_buffer("positions")
        x = x.expand(memory_features.shape[0], -1, -1)
        codes = parts.get_parameter("memory_temporal_positional_encoding").flatten(1)
        # The last code stands for frames with prompts, those before it for 1, 2, ... frames ago.
        aged = memory_features + codes[(memory_offsets + count - 1) % count][:, :, None]
        pointers = object_pointers.reshape(object_pointers.shape[0], -1, channels)
        # In which order keys come does not matter: what has no place stands beside the pointers.
        plain, timed = (
            torch.cat([values[:, :, :split].flatten(1, 2), pointers], dim=1) for values in (memory_features, aged)
        )
        placed = aged[:, :, split:] + parts.get_buffer("places")
        for layer in attention.layers:
            x = layer(x, memory_features[:, :, split:], placed, plain, timed)
        return (attention.layer_norm(x).transpose(1, 2).reshape(-1, *vision_features.shape[1:]),)

    return override(parts, forward)


def memory_encoder(model: EdgeTamVideoModel, dims: Mapping[str, int]) -> nn.Module:
    """Return the network that makes memories of masks, which come squashed or binarized, and scaled."""
    import torch
    from torch import nn

    encoder, perceiver = model.memory_encoder, model.spatial_perceiver
    parts = container(memory_encoder=encoder, spatial_perceiver=perceiver)
    with torch.device("cpu"):
        table = memory.sine_table(dims["grid"], dims["memory_size"])[None]
    parts.places = nn.Buffer(table, persistent=False)

    def forward(vision_features: Tensor, mask_for_memory: Tensor) -> tuple[Tensor]:
        made = tracker.memory_map(encoder, mask_for_memory[:, None], vision_features)
        return (latents(perceiver, made, parts.get_buffer("places"), dims["latent_side"]),)

    return override(parts, forward)


def latents(perceiver: EdgeTamVideoPerceiverResampler, features: Tensor, places: Tensor, side: int) -> Tensor:
    """Return what a perceiver keeps of a map, [batch, latents, channels]: of all of it, then of its windows in rows.

    features: [batch, channels, height, width]; places: of its cells, [1, height * width, channels]
    side:     how many windows are beside each other
    """
    import torch

    batch, channels, height, width = features.shape
    cells = features.flatten(2).transpose(1, 2)
    windows = features.reshape(batch, channels, side, height // side, side, width // side)
    windows = windows.permute(0, 2, 4, 3, 5, 1).reshape(batch * side * side, -1, channels)
    whole = perceiver.latents_1d.expand(batch, -1, -1)
    # Here transformers has a view of what it expanded, which holds for one object alone.
    own = perceiver.latents_2d.expand(batch, -1, -1).reshape(batch * side * side, 1, channels)
    for layer in perceiver.layers:
        whole = layer(whole, cells, places.expand(batch, -1, -1))
        own = _looked_at_alone(layer, own, windows)
    kept: Tensor = perceiver.layer_norm(torch.cat([whole, own.reshape(batch, side * side, channels)], dim=1))
    return kept


def _looked_at_alone(layer: EdgeTamVideoPerceiverEncoderLayer, latent: Tensor, cells: Tensor) -> Tensor:
    """Return what a layer makes of one latent and its window's cells, [batch, 1, channels].

    A latent that attends to itself alone is weighed with 1, whatever its query and key: those are left out.
    """
    normed, own = layer.layer_norm_input(cells), layer.self_attention
    x = latent + layer.cross_attention(query=layer.layer_norm_latents(latent), key=normed, value=normed)
    x = x + layer.mlp(x)
    x = x + own.o_proj(own.v_proj(layer.layer_norm_self(x)))
    made: Tensor = x + layer.self_mlp(x)
    return made

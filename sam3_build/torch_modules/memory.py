"""What trackers of SAM 2's kind remember with: attention to memories, their encoder, tables of positions.

The modules are those of transformers' Sam2VideoModel and keep its names; what is computed is the same. Rotation tables
are broadcast over memories instead of repeated, and attention weighs memories before it projects them: their 64
channels and not the 256 that values have, a quarter of the work, and the same sum since its weights add up to 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sam3_build.torch_modules.wrapping import container, override

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoMemoryAttentionLayer, Sam2VideoRoPEAttention


def sine_table(side: int, channels: int) -> Tensor:
    """Return the encoding of a grid's rows and columns, [side * side, channels] float32.

    Half of the channels are for rows; sines and cosines alternate. Positions run from 1, over one turn: Meta's
    PositionEmbeddingSine, normalized.
    """
    import math

    import torch

    steps = torch.arange(1, side + 1, dtype=torch.float32) / (side + 1e-6) * (2 * math.pi)
    half = channels // 2
    exponents = 2 * torch.div(torch.arange(half), 2, rounding_mode="floor").to(torch.float32) / half
    angles = steps[:, None] / 10000**exponents
    encoded = torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=2).flatten(1)
    rows, columns = encoded[:, None].expand(-1, side, -1), encoded[None].expand(side, -1, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)


def time_encoding(times: Tensor, channels: int) -> Tensor:
    """Return sines, then cosines of times [...], [..., channels]. Source: `get_1d_sine_pe` of facebookresearch/sam2."""
    import torch

    half = channels // 2
    exponents = 2 * torch.div(torch.arange(half), 2, rounding_mode="floor").to(torch.float32) / half
    angles = times[..., None] / 10000**exponents
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def rotation_tables(side: int, channels: int, base: float) -> tuple[Tensor, Tensor]:
    """Return cosines and signed sines for a grid's cells, [side * side, channels] float32.

    A pair (a, b) of channels becomes (a * cos - b * sin, b * cos + a * sin): the first sine of each is negated. The
    first half of the channels turns with the column, the second with the row.
    """
    import torch

    half = channels // 2
    frequencies = 1.0 / (base ** (torch.arange(0, half, 2, dtype=torch.float32) / half))
    turns = torch.arange(side, dtype=torch.float32)[:, None] * frequencies
    columns, rows = turns[None].expand(side, -1, -1), turns[:, None].expand(-1, side, -1)
    angles = torch.cat([columns, rows], dim=2).flatten(0, 1).repeat_interleave(2, dim=1)
    sines = angles.sin()
    sines[:, 0::2] = -sines[:, 0::2]
    return angles.cos(), sines


def rotation(side: int, channels: int, base: float) -> nn.Module:
    """Return a module, without weights, that rotates [..., side * side, channels] by its cells' positions."""
    import torch
    from torch import nn

    class Rope(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            with torch.device("cpu"):
                cosines, sines = rotation_tables(side, channels, base)
            self.cosines = nn.Buffer(cosines, persistent=False)
            self.sines = nn.Buffer(sines, persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            pairs = x.reshape(*x.shape[:-1], -1, 2)
            swapped = torch.cat([pairs[..., 1:], pairs[..., :1]], dim=-1).flatten(-2)
            return x * self.cosines + swapped * self.sines

    return Rope()


def attend(attention: Sam2VideoRoPEAttention, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return [batch, n, channels] of one head. values: [batch, m, ...], projected behind the sum of weighted ones."""
    weights = (query * attention.scaling @ keys.transpose(1, 2)).softmax(dim=-1)
    attended: Tensor = attention.o_proj(attention.v_proj(weights @ values))
    return attended


def memory_layer(
    layer: Sam2VideoMemoryAttentionLayer, side: int, base: float, memory_side: int | None = None
) -> nn.Module:
    """Give a layer of transformers' memory attention a forward that rotates by broadcast tables.

    It takes features [batch, cells, channels], spatial memories and the same with positions, both [batch, memories,
    cells, own channels], pointers and the same with positions, both [batch, rows, own channels].

    side: of the features' grid; memory_side: of a memory's, where that is another one
    """
    import torch

    for attention in (layer.self_attn, layer.cross_attn_image):
        attention.add_module("rope", rotation(side, attention.internal_dim, base))
    cross = layer.cross_attn_image
    rotate = cross.rope
    # EdgeTAM's layer has in a module what SAM 2's has beside each other.
    mix = layer.mlp if hasattr(layer, "mlp") else lambda x: layer.linear2(layer.activation(layer.linear1(x)))
    if memory_side is not None:
        rotate = rotation(memory_side, cross.internal_dim, base)
        cross.add_module("memories", container(rope=rotate))

    def forward(x: Tensor, spatial: Tensor, placed: Tensor, pointers: Tensor, timed: Tensor) -> Tensor:
        own = layer.self_attn
        normed = layer.layer_norm1(x)
        x = x + attend(own, own.rope(own.q_proj(normed)), own.rope(own.k_proj(normed)), normed)
        rotated = rotate(cross.k_proj(placed)).flatten(1, 2)
        keys = torch.cat([rotated, cross.k_proj(timed)], dim=1)
        memories = torch.cat([spatial.flatten(1, 2), pointers], dim=1)
        x = x + attend(cross, cross.rope(cross.q_proj(layer.layer_norm2(x))), keys, memories)
        mixed: Tensor = mix(layer.layer_norm3(x))
        return x + mixed

    return override(layer, forward)

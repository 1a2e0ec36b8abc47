"""TinyViT (arXiv 2207.10666): a picture to a map of its 32nd part, by attention in windows. PyTorch; workers only.

A stage of inverted bottlenecks, then three of attention in windows with learned biases by distance, a depthwise
convolution and an MLP. Names are those of the authors' code. Maps are [batch, channels, height, width] between blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sam3_build.torch_modules.conv_norm import conv_norm, sequence, stem
from sam3_build.torch_modules.wrapping import container, override

if TYPE_CHECKING:
    from torch import Tensor, nn


def trunk(widths: Sequence[int], depths: Sequence[int], heads: Sequence[int], windows: Sequence[int]) -> nn.Module:
    """Return images [batch, 3, height, width] -> [batch, widths[-1], ceil(height / 32), ceil(width / 32)].

    heads, windows: of each stage, the side of a window in cells; the first stage has no attention
    """
    from torch import nn

    stages = []
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        blocks = [_block(width, heads[stage], windows[stage]) if stage else _bottleneck(width) for _ in range(depth)]
        parts: dict[str, nn.Module] = {"blocks": nn.Sequential(*blocks)}
        if stage + 1 < len(widths):
            parts["downsample"] = _halving(width, widths[stage + 1])
        stages.append(sequence(**parts))
    return sequence(patch_embed=sequence(seq=stem(widths[0])), layers=nn.Sequential(*stages))


def _bottleneck(width: int) -> nn.Module:
    from torch.nn.functional import gelu

    inner = 4 * width
    conv1, conv2 = conv_norm(width, inner), conv_norm(inner, inner, 3, groups=inner)
    conv3 = conv_norm(inner, width)
    return override(
        container(conv1=conv1, conv2=conv2, conv3=conv3), lambda x: gelu(conv3(gelu(conv2(gelu(conv1(x))))) + x)
    )


def _halving(channels: int, width: int) -> nn.Module:
    from torch import nn

    return sequence(
        conv1=conv_norm(channels, width),
        act=nn.GELU(),
        conv2=conv_norm(width, width, 3, 2, groups=width),
        act2=nn.GELU(),
        conv3=conv_norm(width, width),
    )


def _block(width: int, heads: int, window: int) -> nn.Module:
    from torch import nn

    attention = _attention(width, heads, window)
    local = conv_norm(width, width, 3, groups=width)
    mlp = sequence(
        norm=nn.LayerNorm(width), fc1=nn.Linear(width, 4 * width), act=nn.GELU(), fc2=nn.Linear(4 * width, width)
    )

    def forward(x: Tensor) -> Tensor:
        x = local(x + in_windows(attention, x, window))
        cells = x.permute(0, 2, 3, 1)
        mixed: Tensor = cells + mlp(cells)
        return mixed.permute(0, 3, 1, 2)

    return override(container(attn=attention, local_conv=local, mlp=mlp), forward)


def in_windows(attention: nn.Module, x: Tensor, window: int) -> Tensor:
    """Return attention within each window of a map. The last ones are filled up with zeros, which take part."""
    from torch.nn.functional import pad

    _, channels, height, width = x.shape
    rows, columns = -(-height // window), -(-width // window)
    cells = pad(x.permute(0, 2, 3, 1), (0, 0, 0, columns * window - width, 0, rows * window - height))
    split = cells.reshape(-1, rows, window, columns, window, channels).transpose(2, 3)
    attended: Tensor = attention(split.reshape(-1, window * window, channels))
    joined = attended.reshape(-1, rows, columns, window, window, channels).transpose(2, 3)
    return joined.reshape(-1, rows * window, columns * window, channels)[:, :height, :width].permute(0, 3, 1, 2)


def _attention(width: int, heads: int, window: int) -> nn.Module:
    """Return attention among the cells of a window, [windows, window * window, width]."""
    import torch
    from torch import nn

    norm, qkv, proj = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
    biases = nn.Parameter(torch.zeros(heads, window * window))

    def forward(x: Tensor) -> Tensor:
        # A head's query, key and value stand side by side.
        q, k, v = qkv(norm(x)).unflatten(2, (heads, -1)).transpose(1, 2).chunk(3, dim=-1)
        cells = torch.arange(window * window)
        rows, columns = cells // window, cells % window
        distances = (rows[:, None] - rows).abs() * window + (columns[:, None] - columns).abs()
        scores = (q @ k.transpose(2, 3)) * (width // heads) ** -0.5 + module.get_parameter("attention_biases")[
            :, distances
        ]
        attended: Tensor = proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return attended

    module = container(norm=norm, qkv=qkv, proj=proj)
    module.register_parameter("attention_biases", biases)
    return override(module, forward)

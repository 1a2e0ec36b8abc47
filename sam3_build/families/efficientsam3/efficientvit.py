"""EfficientViT B (arXiv 2205.14756): a picture to a map of its 32nd part, by linear attention. PyTorch; workers only.

Inverted bottlenecks, and from the third stage on ReLU linear attention on queries, keys and values of several scales.
Names are those of the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from sam3_build.torch_modules.conv_norm import residual, sequence
from sam3_build.torch_modules.wrapping import container, named, override

if TYPE_CHECKING:
    from torch import Tensor, nn

# Keeps a row of zeros from being divided by zero.
EPSILON = 1e-15

# How much wider bottlenecks are inside; the side of the convolutions whose output is the second scale.
EXPANSION, SCALE = 4, 5


def trunk(widths: Sequence[int], depths: Sequence[int], head_width: int) -> nn.Module:
    """Return images [batch, 3, height, width] -> [batch, widths[-1], ceil(height / 32), ceil(width / 32)].

    widths, depths: of the stem and of four stages, of which the last two have attention
    """
    first, *others = widths
    stem = [_conv(3, first, 3, 2)] + [residual("main", _depthwise(first)) for _ in range(depths[0])]
    stages, channels = [], first
    for stage, (width, depth) in enumerate(zip(others, depths[1:], strict=True)):
        attends = stage >= 2
        blocks: list[nn.Module] = [sequence(main=_bottleneck(channels, width, 2, is_normed=not attends))]
        if attends:
            blocks += [_attending(width, head_width) for _ in range(depth)]
        else:
            blocks += [residual("main", _bottleneck(width, width)) for _ in range(depth - 1)]
        stages.append(_list(blocks))
        channels = width
    return sequence(input_stem=_list(stem), stages=sequence(**{str(n): stage for n, stage in enumerate(stages)}))


def _list(modules: Sequence[nn.Module]) -> nn.Module:
    from torch import nn

    return sequence(op_list=nn.Sequential(*modules))


def _conv(
    channels: int,
    width: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    *,
    is_normed: bool = True,
    is_active: bool = True,
) -> nn.Module:
    """Return a convolution with a BatchNorm, or else a bias, and hard swish where it is active."""
    from torch import nn

    conv = nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups, bias=not is_normed)
    parts: dict[str, nn.Module] = {"conv": conv}
    if is_normed:
        parts["norm"] = nn.BatchNorm2d(width)
    if is_active:
        parts["act"] = nn.Hardswish()
    return sequence(**parts)


def _depthwise(width: int) -> nn.Module:
    return sequence(depth_conv=_conv(width, width, 3, groups=width), point_conv=_conv(width, width, is_active=False))


def _bottleneck(channels: int, width: int, stride: int = 1, *, is_normed: bool = True) -> nn.Module:
    """Return an inverted bottleneck. is_normed: whether its first two convolutions have a BatchNorm, as the last has"""
    inner = EXPANSION * channels
    return sequence(
        inverted_conv=_conv(channels, inner, is_normed=is_normed),
        depth_conv=_conv(inner, inner, 3, stride, inner, is_normed=is_normed),
        point_conv=_conv(inner, width, is_active=False),
    )


def _attending(width: int, head_width: int) -> nn.Module:
    return sequence(
        context_module=residual("main", _linear_attention(width, head_width)),
        local_module=residual("main", _bottleneck(width, width, is_normed=False)),
    )


def _linear_attention(width: int, head_width: int) -> nn.Module:
    """Return ReLU linear attention over a whole map, on each cell's own projections and on sums of their surroundings.

    Its sums over all cells run in a module named `linear_attention`: FP16 does not hold them.
    """
    import torch
    from torch import nn

    joined = 3 * width
    qkv = sequence(conv=nn.Conv2d(width, joined, 1, bias=False))
    aggregate = nn.Sequential(
        nn.Conv2d(joined, joined, SCALE, padding=SCALE // 2, groups=joined, bias=False),
        nn.Conv2d(joined, joined, 1, groups=joined // head_width, bias=False),
    )
    proj = _conv(2 * width, width, is_active=False)
    attend = named(partial(attention, head_width=head_width))

    def forward(x: Tensor) -> Tensor:
        own = qkv(x)
        heads = torch.cat([own, aggregate(own)], dim=1)
        mixed: Tensor = proj(attend(heads))
        return mixed

    aggreg = nn.ModuleList([aggregate])
    return override(container(qkv=qkv, aggreg=aggreg, proj=proj, linear_attention=attend), forward)


def attention(heads: Tensor, head_width: int) -> Tensor:
    """Return [batch, channels / 3, height, width] of [batch, channels, height, width], one head after another.

    A head has queries, keys and values, `head_width` channels each. Its output is the sum of values, weighted by how
    far relu(key) and relu(query) agree, which is one product of matrices for all queries.
    """
    from torch.nn.functional import pad

    batch, _, height, width = heads.shape
    q, k, v = heads.reshape(batch, -1, 3 * head_width, height * width).chunk(3, dim=2)
    sums = pad(v, (0, 0, 0, 1), value=1.0) @ k.relu().transpose(2, 3) @ q.relu()
    weighted = sums[:, :, :-1] / (sums[:, :, -1:] + EPSILON)
    return weighted.reshape(batch, -1, height, width)

"""Layers that small trunks share: a convolution with its BatchNorm, a residual branch, a gate on channels."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from sam3_build.torch_modules.wrapping import container, override

if TYPE_CHECKING:
    from torch import Tensor, nn


def conv_norm(channels: int, width: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Return a convolution without bias and its BatchNorm, under the names `c` and `bn` that LeViT gave them."""
    from torch import nn

    conv = nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    return sequence(c=conv, bn=nn.BatchNorm2d(width))


def stem(width: int) -> nn.Sequential:
    """Return what makes [batch, width, height / 4, width / 4] of a picture: two convolutions of stride 2."""
    from torch import nn

    return nn.Sequential(conv_norm(3, width // 2, 3, 2), nn.GELU(), conv_norm(width // 2, width, 3, 2))


def residual(name: str, module: nn.Module) -> nn.Module:
    """Return x + module(x); the module's weights lie under `name`."""
    return override(container(**{name: module}), lambda x: x + module(x))


def sequence(**parts: nn.Module) -> nn.Sequential:
    """Return the modules one after another, under these names."""
    from torch import nn

    return nn.Sequential(OrderedDict(parts))


def squeeze_excite(width: int) -> nn.Module:
    """Return a gate on channels, from their means over the picture; a quarter of them inside, in whole eights."""
    from torch import nn

    inner = max(8, (width // 4 + 4) // 8 * 8)
    fc1, fc2 = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)

    def forward(x: Tensor) -> Tensor:
        gate: Tensor = fc2(fc1(x.mean((2, 3), keepdim=True)).relu())
        return x * gate.sigmoid()

    return override(container(fc1=fc1, fc2=fc2), forward)

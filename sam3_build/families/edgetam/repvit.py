"""EdgeTAM's trunk, RepViT-M1 (arXiv 2307.09283): a picture to maps of its 4th, 8th, 16th and 32nd part. Workers only.

Names are those of timm's `repvit_m1` with `features_only`, which checkpoints have. In this first edition of RepViT each
of a block's parallel branches has a BatchNorm of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sam3_build.torch_modules.conv_norm import conv_norm, sequence, squeeze_excite
from sam3_build.torch_modules.wrapping import container, override

if TYPE_CHECKING:
    from torch import Tensor, nn


def trunk(widths: Sequence[int], depths: Sequence[int]) -> nn.Module:
    """Return images [batch, 3, side, side] -> a map [batch, width, side / 4, ..] of the first stage, and so on.

    depths: blocks of each stage, besides those with which all but the first begin
    """
    from torch import nn

    half = widths[0] // 2
    stem = sequence(conv1=conv_norm(3, half, 3, 2), act1=nn.GELU(), conv2=conv_norm(half, widths[0], 3, 2))
    stages = [
        sequence(
            downsample=_halving(widths[number - 1], width) if number else nn.Identity(),
            blocks=nn.Sequential(*(_block(width, excited=not n % 2) for n in range(depth))),
        )
        for number, (width, depth) in enumerate(zip(widths, depths, strict=True))
    ]

    def forward(images: Tensor) -> list[Tensor]:
        x, maps = stem(images), []
        for stage in stages:
            x = stage(x)
            maps.append(x)
        return maps

    named = {f"stages_{number}": stage for number, stage in enumerate(stages)}
    return override(container(stem=stem, **named), forward)


def _block(width: int, *, excited: bool) -> nn.Module:
    """Return what mixes positions, by two parallel convolutions of each channel alone, and then channels."""
    conv, conv1 = (conv_norm(width, width, kernel, groups=width) for kernel in (3, 1))
    mixer = override(container(conv=conv, conv1=conv1), lambda x: conv(x) + conv1(x) + x)
    gate = {"se": squeeze_excite(width)} if excited else {}
    return sequence(token_mixer=mixer, **gate, channel_mixer=_channel_mixer(width))


def _halving(channels: int, width: int) -> nn.Module:
    return sequence(
        pre_block=_block(channels, excited=False),
        spatial_downsample=conv_norm(channels, channels, 3, 2, groups=channels),
        channel_downsample=conv_norm(channels, width),
        ffn=_channel_mixer(width),
    )


def _channel_mixer(width: int) -> nn.Module:
    from torch import nn

    conv1, conv2, act = conv_norm(width, 2 * width), conv_norm(2 * width, width), nn.GELU()
    return override(container(conv1=conv1, conv2=conv2), lambda x: x + conv2(act(conv1(x))))

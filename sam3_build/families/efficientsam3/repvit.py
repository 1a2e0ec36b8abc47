"""RepViT (arXiv 2307.09283): a picture to a map of its 32nd part, by convolutions alone. PyTorch; workers only.

A block mixes positions by a depthwise convolution with two parallel branches, then channels by an MLP. Names are those
of the authors' code. BatchNorms stay beside their convolutions, as checkpoints have them; ONNX passes merge them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sam3_build.torch_modules.conv_norm import conv_norm, residual, sequence, squeeze_excite, stem
from sam3_build.torch_modules.wrapping import container, override

if TYPE_CHECKING:
    from torch import nn


def trunk(widths: Sequence[int], depths: Sequence[int]) -> nn.Module:
    """Return images [batch, 3, height, width] -> [batch, widths[-1], ceil(height / 32), ceil(width / 32)].

    depths: blocks of each stage; every stage but the first begins with the block that halves the map
    """
    from torch import nn

    features: list[nn.Module] = [stem(widths[0])]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        if stage:
            features.append(_halving(widths[stage - 1], width))
        blocks = depth - bool(stage)
        # Every second block has squeeze and excitation, but for the last one before the map is halved.
        before_halving = blocks - 1 if stage + 1 < len(widths) else None
        features += [_block(width, excited=not n % 2 and n != before_halving) for n in range(blocks)]
    body = nn.Sequential(*features)
    return override(container(features=body), body.forward)


def _block(width: int, *, excited: bool) -> nn.Module:
    from torch import nn

    conv, conv1 = conv_norm(width, width, 3, groups=width), nn.Conv2d(width, width, 1, groups=width)
    norm = nn.BatchNorm2d(width)
    depthwise = override(container(conv=conv, conv1=conv1, bn=norm), lambda x: norm(conv(x) + conv1(x) + x))
    mixer = nn.Sequential(depthwise, squeeze_excite(width) if excited else nn.Identity())
    return sequence(token_mixer=mixer, channel_mixer=_channel_mixer(width))


def _halving(channels: int, width: int) -> nn.Module:
    from torch import nn

    mixer = nn.Sequential(
        conv_norm(channels, channels, 3, 2, groups=channels), nn.Identity(), conv_norm(channels, width)
    )
    return sequence(token_mixer=mixer, channel_mixer=_channel_mixer(width))


def _channel_mixer(width: int) -> nn.Module:
    from torch import nn

    return residual("m", nn.Sequential(conv_norm(width, 2 * width), nn.GELU(), conv_norm(2 * width, width)))

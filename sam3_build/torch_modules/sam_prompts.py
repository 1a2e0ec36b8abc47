"""What the prompt encoders of SAM 1 and SAM 2 compute: tokens of points and boxes, and a feature map of a mask.

Equal to `SamOnnxModel` of facebookresearch/segment-anything, with a batch of prompts instead of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sam3_build.torch_modules.wrapping import named

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers.models.sam.modeling_sam import SamPositionalEmbedding
    from transformers.models.sam2.modeling_sam2 import Sam2PositionalEmbedding

# Labels of points, exact floats: what is not meant, what is, and two corners of a box. -1 is no point.
BACKGROUND, FOREGROUND, TOP_LEFT, BOTTOM_RIGHT = range(4)
NO_POINT = -1


def point_encoding(owner: SamPositionalEmbedding | Sam2PositionalEmbedding, size: int) -> nn.Module:
    """Return a module, without weights of its own, that encodes points.

    It takes [..., 2] float32, x and y in pixels of the network's input, which is `size` pixels wide and high, as
    positions of pixels' corners: 0.5 is added. It returns [..., 2 * features]: sines, then cosines.

    owner: has the random frequencies, `positional_embedding` [2, features]
    Give it a path with `coordinates` in it, that reduced precisions keep in FP32: FP16 is off by half a pixel at 1024.
    """
    return named(lambda points: _encoded((points + 0.5) / size, owner.positional_embedding))


def grid_encoding(frequencies: Tensor, side: int) -> Tensor:
    """Return the encoding of the centres of a grid of `side` times `side` cells, [1, 2 * features, side, side].

    frequencies: [2, features]
    """
    import torch

    centres = (torch.arange(side, dtype=torch.float32) + 0.5) / side
    rows, columns = torch.meshgrid(centres, centres, indexing="ij")
    return _encoded(torch.stack([columns, rows], dim=-1), frequencies).permute(2, 0, 1)[None]


def _encoded(positions: Tensor, frequencies: Tensor) -> Tensor:
    """Return the encoding of x and y [..., 2], 0 to 1."""
    import torch

    angles = 2 * math.pi * ((2 * positions - 1) @ frequencies)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def point_tokens(encoded: Tensor, labels: Tensor, no_point: Tensor, kinds: Sequence[Tensor]) -> Tensor:
    """Return a token for each point, [batch, points, channels]: its encoding and what its label adds.

    encoded:  [batch, points, channels]
    labels:   [batch, points] float32; one that is no label adds nothing
    no_point: [1, channels], what a point labelled NO_POINT is instead
    kinds:    [1, channels] of each other label, in order
    """
    import torch

    label = labels[..., None]
    tokens = torch.where(label == NO_POINT, no_point, encoded)
    for number, kind in enumerate(kinds):
        tokens = tokens + torch.where(label == number, kind, 0.0)
    return tokens


def mask_features(embed: nn.Module, no_mask: Tensor, masks: Tensor, has_mask: Tensor) -> Tensor:
    """Return what is added to the features of the picture, [batch, channels, side, side].

    embed:    makes features of mask logits [batch, 1, 4 * side, 4 * side]
    no_mask:  [1, channels], what stands for the mask of a row without one
    has_mask: [batch] float32, 1 of a row whose mask counts, else 0
    """
    import torch

    return torch.where(has_mask[:, None, None, None] > 0.5, embed(masks), no_mask[..., None, None])

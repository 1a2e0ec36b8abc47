"""ROI align of boxes on a feature map as two matrix products, equal to ONNX's RoiAlign.

The bilinear samples of one box lie on a rectangular grid, so their averages are `rows @ features @ columns`, where a
row holds the mean tent weights of one bin's samples along one axis. No loop over the batch, no gather, no plug-in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# Sample counts are data; the graph needs a limit. Boxes up to this many times the picture's side are sampled exactly
# as defined, wider ones at as many points as that limit allows.
WIDEST_BOX = 2


def bin_weights(low: Tensor, high: Tensor, size: int, bins: int) -> Tensor:
    """Return the weight of each of `size` cells in each of `bins` bins, along one axis.

    `low` and `high` are box edges in cells, [batch, boxes]; the result is [batch, boxes, bins, size]. As RoiAlign with
    `coordinate_transformation_mode=output_half_pixel` (torchvision: `aligned=False`) and `sampling_ratio=0` defines it:
    a box is at least one cell long, a bin takes ceil(box / bins) samples, a sample counts 0 when it lies more than one
    cell before the first cell or beyond the last edge, and is clamped to the cells otherwise.
    """
    import torch

    most = -(-WIDEST_BOX * size // bins)
    length = (high - low).clamp(min=1.0)[..., None, None]
    pitch = length / bins
    count = pitch.ceil().clamp(max=float(most))
    bin_index = torch.arange(bins, dtype=low.dtype, device=low.device)[:, None]
    sample = torch.arange(most, dtype=low.dtype, device=low.device)
    # In the operator's order of operations: a box around the picture's edge has samples exactly on it, which count or
    # not by how they round.
    position = low[..., None, None] + bin_index * pitch + (sample + 0.5) * pitch / count
    counts = (sample < count) & (position >= -1.0) & (position <= size)
    cell = torch.arange(size, dtype=low.dtype, device=low.device)
    tent = (1.0 - (position.clamp(0.0, size - 1.0)[..., None] - cell).abs()).clamp(min=0.0)
    return (tent * counts[..., None].to(low.dtype)).sum(-2) / count


def pool(features: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return [batch * boxes, channels, bins, bins] from [batch, height, width, channels] and both axes' weights."""
    batch, height, width, channels = features.shape
    boxes, bins = rows.shape[1:3]
    by_row = rows.flatten(1, 2) @ features.reshape(batch, height, width * channels)
    by_row = by_row.reshape(batch, boxes, bins, width, channels)
    pooled = columns[:, :, None] @ by_row
    return pooled.permute(0, 1, 4, 2, 3).flatten(0, 1)

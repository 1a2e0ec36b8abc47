"""The separable ROI align against the operator's definition."""

from __future__ import annotations

import pytest
import torch
from roi_align_oracle import roi_align

from sam3_build.torch_modules.roi_align import WIDEST_BOX, bin_weights, pool

BINS = 7


def pooled(features, boxes):
    height, width = features.shape[-2:]
    rows = bin_weights(boxes[..., 1], boxes[..., 3], height, BINS)
    columns = bin_weights(boxes[..., 0], boxes[..., 2], width, BINS)
    return pool(features.permute(0, 2, 3, 1), rows, columns)


def boxes(kind, height, width, count=200):
    """Random corner boxes in cells: [2, count, 4]."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([width, height, width, height])
    centre = torch.rand(2, count, 2, generator=generator)
    size = torch.rand(2, count, 2, generator=generator)
    if kind == "leaving the picture":
        centre = centre * 2 - 0.5
    if kind == "thinner than a cell":
        size = size * 0.5 / max(height, width)
    if kind == "wider than the picture":
        size = 1 + size * (WIDEST_BOX - 1)
    if kind == "around an edge":
        centre = centre.round()
    if kind == "empty":
        centre, size = centre * 0, size * 0
    return torch.cat([centre - size / 2, centre + size / 2], -1) * scale


@pytest.mark.parametrize(
    "kind",
    ["inside", "leaving the picture", "around an edge", "thinner than a cell", "wider than the picture", "empty"],
)
@pytest.mark.parametrize(("height", "width"), [(12, 12), (72, 72), (20, 33)])
def test_pooling_equals_the_operator(kind, height, width):
    features = torch.randn(2, 5, height, width, generator=torch.Generator().manual_seed(1))
    rois = boxes(kind, height, width)
    expected = roi_align(features, rois, BINS)
    assert expected.abs().max() > 0.1
    assert (pooled(features, rois) - expected).abs().max() < 2e-4


def test_a_box_far_outside_pools_nothing():
    rois = torch.tensor([[[-30.0, -30.0, -20.0, -20.0]]])
    assert pooled(torch.ones(1, 2, 12, 12), rois).abs().max() == 0


def test_every_bin_of_a_box_inside_has_weights_that_sum_to_one():
    rois = boxes("inside", 12, 12).clamp(0, 12)
    low, high = rois[..., 1], rois[..., 3]
    whole = high - low >= 1  # a thinner one grows to a cell, perhaps over the edge
    assert whole.sum() > 100
    assert torch.allclose(bin_weights(low, high, 12, BINS).sum(-1)[whole], torch.ones(BINS))

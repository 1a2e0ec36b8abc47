"""Takes what the network predicts and what is wanted, returns the losses, each a number to minimise.

Every decoder layer and group of queries is matched and judged on its own; boxes here are cxcywh, relative.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from training.matching import assign


@dataclass(frozen=True)
class Weights:
    """What each loss counts."""

    classes: float = 10.0
    corners: float = 5.0
    overlap: float = 2.0
    presence: float = 2.0
    mask: float = 5.0
    dice: float = 5.0
    semantic: float = 2.0
    cells: float = 1.0
    sight: float = 1.0
    kinds: float = 2.0


ALPHA, GAMMA = 0.5, 2.0


def generalised_iou(one: Tensor, other: Tensor) -> Tensor:
    """Return the generalised intersection over union of boxes [..., 4] (cxcywh), -1 to 1."""
    low_a, high_a = one[..., :2] - one[..., 2:] / 2, one[..., :2] + one[..., 2:] / 2
    low_b, high_b = other[..., :2] - other[..., 2:] / 2, other[..., :2] + other[..., 2:] / 2
    shared = (torch.minimum(high_a, high_b) - torch.maximum(low_a, low_b)).clamp(min=0).prod(-1)
    union = one[..., 2:].prod(-1) + other[..., 2:].prod(-1) - shared
    hull = (torch.maximum(high_a, high_b) - torch.minimum(low_a, low_b)).prod(-1)
    return shared / union.clamp(min=1e-9) - (hull - union) / hull.clamp(min=1e-9)


def focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """Return the focal loss of each logit."""
    chance = logits.sigmoid()
    wrong = torch.where(wanted > 0.5, 1 - chance, chance)
    weight = torch.where(wanted > 0.5, ALPHA, 1 - ALPHA)
    return weight * wrong**GAMMA * functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, wanted: Tensor, counts: Tensor) -> tuple[Tensor, ...]:
    """Return (run, question, query, thing) of every matched pair.

    Logits [runs, q, n], boxes [runs, q, n, 4]; wanted [q, s, 4], of which question i has the first counts[i].
    """
    pairs = boxes[:, :, :, None], wanted[None, :, None]
    cost = 5 * (pairs[0] - pairs[1]).abs().sum(-1) - 2 * generalised_iou(*pairs) - 2 * logits.sigmoid()[..., None]
    assigned = assign(cost.float().cpu().numpy(), counts.cpu().numpy())
    return tuple(torch.from_numpy(index.copy()).to(logits.device) for index in assigned)


def queries(
    logits: Tensor, boxes: Tensor, pairs: tuple[Tensor, ...], wanted: Tensor, counts: Tensor
) -> dict[str, Tensor]:
    """Return the losses of classes and boxes, summed over runs; classes count only where the thing is there."""
    run, question, query, thing = pairs
    matched = max(int(counts.sum()), 1)
    target = torch.zeros_like(logits)
    target[run, question, query] = 1.0
    present = (counts > 0).to(logits.dtype)[None, :, None]
    predicted_boxes, right = boxes[run, question, query], wanted[question, thing]
    return {
        "classes": (focal(logits, target) * present).sum() / matched,
        "corners": (predicted_boxes - right).abs().sum() / matched,
        "overlap": (1 - generalised_iou(predicted_boxes, right)).sum() / matched,
    }


def presence(logits: Tensor, counts: Tensor) -> Tensor:
    """Return the loss of saying whether the thing is there, [layers, q], summed over layers."""
    target = (counts > 0).to(logits.dtype).expand_as(logits)
    return functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1).sum()


def masks(logits: Tensor, wanted: Tensor) -> dict[str, Tensor]:
    """Return the losses of masks [k, h, w] against how much of each cell of a finer grid is covered [k, H, W]."""
    if not len(logits):
        return {"mask": logits.sum(), "dice": logits.sum()}
    finer = functional.interpolate(logits[:, None], wanted.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    chance = finer.sigmoid()
    shared = 2 * (chance * wanted).sum((1, 2)) + 1
    return {
        "mask": functional.binary_cross_entropy_with_logits(finer, wanted),
        "dice": (1 - shared / (chance.sum((1, 2)) + wanted.sum((1, 2)) + 1)).mean(),
    }


def cells(predicted: Tensor, wanted: Tensor, counts: Tensor, coverage: Tensor, side: int) -> Tensor:
    """Return the loss of the answers of cells [q, side * side, 5] (class, then left, top, right, bottom as logits).

    A cell answers for the wanted shape that covers most of it, if that is a third or more. `coverage` is
    [q, s, side, side], of wanted shapes only, and boxes reach at most half a picture from a cell's centre.
    """
    most, which = coverage.flatten(2).max(1)  # [q, cells]
    mine = (most >= 1 / 3) & (counts > 0)[:, None]
    matched = max(int(mine.sum()), 1)
    classes = focal(predicted[..., 0], mine.to(predicted.dtype)).sum() / matched
    question, cell = mine.nonzero(as_tuple=True)
    right = wanted[question, which[question, cell]]
    centre = torch.stack([cell % side, cell // side], dim=1).to(predicted.dtype).add(0.5) / side
    reach = predicted[question, cell, 1:].sigmoid() * 0.7 - 0.1
    low, high = centre - reach[:, :2], centre + reach[:, 2:]
    predicted_boxes = torch.cat([(low + high) / 2, (high - low).clamp(min=1e-3)], dim=1)
    boxes = 5 * (predicted_boxes - right).abs().sum(1) + 2 * (1 - generalised_iou(predicted_boxes, right))
    return 10 * classes + boxes.sum() / matched


def kinds(predicted: Tensor, right: Tensor, coverage: Tensor, colours: int) -> Tensor:
    """Return the loss of saying, cell by cell and before any question, which colour and which shape lies there.

    `predicted` is [p, cells, colours + shapes], `right` [p, s, 2], `coverage` [p, s, side, side]; a cell that no shape
    covers by half says nothing.
    """
    most, which = coverage.flatten(2).max(1)
    picture, cell = (most >= 1 / 2).nonzero(as_tuple=True)
    if not len(picture):
        return predicted.sum() * 0
    colour, shape = right[picture, which[picture, cell]].unbind(1)
    chosen = predicted[picture, cell]
    return functional.cross_entropy(chosen[:, :colours], colour) + functional.cross_entropy(chosen[:, colours:], shape)

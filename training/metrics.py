"""How well masks that were found agree with masks that were wanted. Numpy and scipy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]


@dataclass
class Tally:
    """Adds up answers to questions. A wanted thing that was not found counts as an IoU of 0."""

    overlaps: list[float] = field(default_factory=list)
    counts: list[bool] = field(default_factory=list)
    presences: list[bool] = field(default_factory=list)

    def add(self, found: Sequence[Mask], wanted: Sequence[Mask], *, present: bool) -> None:
        """Add one question: the masks found, those wanted, and whether the model says that the thing is there."""
        self.overlaps += best_overlaps(found, wanted)
        self.counts.append(len(found) == len(wanted))
        self.presences.append(present == bool(wanted))

    def numbers(self) -> dict[str, float]:
        """Return the mean IoU of wanted things, the share of exact counts, and the accuracy of presence."""
        return {
            "iou": float(np.mean(self.overlaps)) if self.overlaps else float("nan"),
            "count": float(np.mean(self.counts)) if self.counts else float("nan"),
            "presence": float(np.mean(self.presences)) if self.presences else float("nan"),
        }


def best_overlaps(found: Sequence[Mask], wanted: Sequence[Mask]) -> list[float]:
    """Return the IoU of each wanted mask with the found one that it is paired with, one to one; 0 without one."""
    from scipy.optimize import linear_sum_assignment

    overlaps = [0.0] * len(wanted)
    if found and wanted:
        table = np.array([[overlap(a, b) for b in found] for a in wanted])
        for row, column in zip(*linear_sum_assignment(-table), strict=True):
            overlaps[row] = float(table[row, column])
    return overlaps


def overlap(one: Mask, other: Mask) -> float:
    """Return the intersection over union of two masks; 0 when both are empty."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 0.0

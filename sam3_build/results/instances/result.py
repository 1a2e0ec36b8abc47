"""Instances in pictures: what is measured of them, what gates ask for, and how two sides are compared and drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sam3_build.plugins import CompareRequest, Metric, ResultKind
from sam3_build.spec import Json


def compare(request: CompareRequest, out: Path) -> Mapping[str, Json]:
    """Return the statistics over all cases, and write details and pictures (see `comparison.py`)."""
    from sam3_build.results.instances import comparison

    return comparison.compare(request, out)


# No public comparison of 16-bit engines asks for more than what is asked of reduced precision; rounding alone stays far
# within what is asked of FP32. Below an IoU of a half, two instances are not the same.
RESULT = ResultKind(
    name="instances",
    summary="Instances in pictures, paired by their masks",
    metrics=(
        Metric.none("count", "lost or new", "instances lost or added"),
        Metric.overlap("mask_iou", "mask IoU", "worst overlap of a pair of masks, at the picture's size"),
        Metric.overlap("box_iou", "box IoU", "worst overlap of a pair of boxes"),
        Metric.scores("largest difference of a pair's scores"),
        Metric.none("presence", "presence", "pictures where the two disagree whether anything is there"),
    ),
    compare=compare,
)

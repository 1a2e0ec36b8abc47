"""Objects followed through a video: what is measured of them, what gates ask for, how they are compared and drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sam3_build.plugins import CompareRequest, Metric, ResultKind
from sam3_build.spec import Json


def compare(request: CompareRequest, out: Path) -> Mapping[str, Json]:
    """Return the statistics over all cases, and write details and pictures (see `comparison.py`)."""
    from sam3_build.results.tracks import comparison

    return comparison.compare(request, out)


# A clip is judged as its worst frame is, where that is as bad as an instance may be, and on the whole more strictly.
RESULT = ResultKind(
    name="tracks",
    summary="Objects followed through a video, paired by their ids",
    metrics=(
        Metric.overlap("mask_iou", "mask IoU", "worst overlap of an object's masks in a frame, at the frame's size"),
        Metric.none("visible", "visibility", "frames, object by object, where the two disagree whether it is visible"),
        Metric.none("objects", "lost or new", "objects lost or added"),
        Metric.overlap("mean_iou", "mean IoU", "mean overlap of an object's masks, of the worst clip", reduced=0.995),
        Metric.overlap(
            "order",
            "order IoU",
            "worst overlap of an object's masks with those that it has when objects are given in another order",
        ),
    ),
    compare=compare,
)

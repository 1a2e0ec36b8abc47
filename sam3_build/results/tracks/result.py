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
        Metric(
            "mask_iou",
            "mask IoU",
            "worst overlap of an object's masks in a frame, at the frame's size",
            form=".5f",
            at_least=True,
            bounds=(0.5, 1),
            exact=0.999,
            reduced=0.98,
        ),
        Metric(
            "visible",
            "visibility",
            "frames, object by object, where the two disagree whether it is visible",
            exact=0.0,
            reduced=0.0,
        ),
        Metric("objects", "lost or new", "objects lost or added", exact=0.0, reduced=0.0),
        Metric(
            "mean_iou",
            "mean IoU",
            "mean overlap of an object's masks, of the worst clip",
            form=".5f",
            at_least=True,
            bounds=(0.5, 1),
            exact=0.999,
            reduced=0.995,
        ),
        Metric(
            "order",
            "order IoU",
            "worst overlap of an object's masks with those that it has when objects are given in another order",
            form=".5f",
            at_least=True,
            bounds=(0.5, 1),
            exact=0.999,
            reduced=0.98,
        ),
    ),
    compare=compare,
)

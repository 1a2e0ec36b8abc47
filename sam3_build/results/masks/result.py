"""Masks of prompts on pictures: what is measured of them, what gates ask for, how they are compared and drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sam3_build.plugins import CompareRequest, Metric, ResultKind
from sam3_build.spec import Json


def compare(request: CompareRequest, out: Path) -> Mapping[str, Json]:
    """Return the statistics over all cases, and write details and pictures (see `comparison.py`)."""
    from sam3_build.results.masks import comparison

    return comparison.compare(request, out)


# What is asked of a pair of instances, for a prompt's mask is one whose partner is known.
RESULT = ResultKind(
    name="masks",
    summary="Masks of prompts: each prompt has its own",
    metrics=(
        Metric(
            "mask_iou",
            "mask IoU",
            "worst overlap of a prompt's masks, at the picture's size",
            form=".5f",
            at_least=True,
            bounds=(0.5, 1),
            exact=0.999,
            reduced=0.98,
        ),
        Metric(
            "score",
            "score diff",
            "largest difference of the IoUs that are predicted of a prompt's masks",
            bounds=(0, 0.5),
            exact=1e-3,
            reduced=0.02,
        ),
        Metric("choice", "choice", "prompts where another of several masks is taken", exact=0.0, reduced=0.0),
        Metric(
            "visible",
            "visibility",
            "prompts where the two disagree whether the object is in the picture",
            exact=0.0,
            reduced=0.0,
        ),
    ),
    compare=compare,
)

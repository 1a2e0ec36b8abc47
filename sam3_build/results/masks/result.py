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
        Metric.overlap("mask_iou", "mask IoU", "worst overlap of a prompt's masks, at the picture's size"),
        Metric.scores("largest difference of the IoUs that are predicted of a prompt's masks"),
        Metric.none("choice", "choice", "prompts where another of several masks is taken"),
        Metric.none("visible", "visibility", "prompts where the two disagree whether the object is in the picture"),
    ),
    compare=compare,
)

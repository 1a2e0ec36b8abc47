"""Metrics in words: what each is called, what a gate on it asks for, and how its values are written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A metric for people. asks: what its gate asks for, with the unit; form: how Python formats a value."""

    title: str
    asks: str = ""
    form: str = ".3g"


METRICS = {
    "max_abs_over_std": Metric("max abs/std", "largest error, in standard deviations of the reference"),
    "max_abs_over_range": Metric("max abs/range", "largest error, as a share of the reference's range"),
    "cosine": Metric("cosine", "same direction, over all values at once", ".5f"),
    "std_ratio": Metric("std ratio", "same spread of values", ".5f"),
    "mismatches": Metric("unequal", "values that are not equal"),
    "nonfinite": Metric("nonfinite", "values that are NaN or Inf"),
    "incomparable": Metric("incomparable", "cases with another shape or dtype"),
    "count": Metric("lost or new", "instances lost or added"),
    "mask_iou": Metric("mask IoU", "worst overlap of a pair of masks, at the picture's size", ".5f"),
    "box_iou": Metric("box IoU", "worst overlap of a pair of boxes", ".5f"),
    "score": Metric("score diff", "largest difference of a pair's scores"),
    "presence": Metric("presence", "pictures where the two disagree whether anything is there"),
    "rows": Metric("rows", "rows of a batch that depend on their place or their neighbours"),
    "gemms": Metric("wrong GEMMs", "matrix products in another precision than was asked for"),
    "low_gemms": Metric("low GEMMs", "matrix products in reduced precision"),
    "low_share": Metric("of weights", "share of their weights' bytes that is reduced"),
}


def metric(name: str) -> Metric:
    """Return how a metric is written; one that is not declared by its own name."""
    return METRICS.get(name) or Metric(name.replace("_", " "))

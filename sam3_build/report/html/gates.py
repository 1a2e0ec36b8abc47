"""A manifest and its verdicts in; which gates judged what, and what each means with these weights, out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sam3_build.compare.dependencies import Judged
from sam3_build.compare.judge import Verdict
from sam3_build.manifest.types import Manifest
from sam3_build.report.table import TITLES, asked

ASKS = {
    "max_abs_over_std": "largest error, in standard deviations of the reference",
    "max_abs_over_range": "largest error, as a share of the reference's range",
    "cosine": "same direction, over all values at once",
    "std_ratio": "same spread of values",
    "mismatches": "values that are not equal",
    "nonfinite": "values that are NaN or Inf",
    "incomparable": "cases with another shape or dtype",
    "count": "instances lost or added",
    "mask_iou": "worst overlap of a pair of masks, at the picture's size",
    "box_iou": "worst overlap of a pair of boxes",
    "score": "largest difference of a pair's scores",
    "presence": "pictures where the two disagree whether anything is there",
    "rows": "rows of a batch that depend on their place or their neighbours",
    "gemms": "matrix products in another precision than was asked for",
    "low_gemms": "matrix products in reduced precision",
    "low_share": "share of their weights' bytes that is reduced",
}


@dataclass(frozen=True)
class GateUse:
    """A gate and in how many outputs it judged, failed, had no verdict, was only told; whether it means something."""

    title: str
    asks: str
    thresholds: tuple[str, ...]
    judged: int
    failed: int
    without: int
    told: int
    means: str


def gate_uses(found: Judged) -> Iterator[GateUse]:
    """Yield every metric that has a threshold, in the order in which the comparisons have it."""
    rows = [row for _, judged in found for row in judged if row.threshold is not None]
    for metric in dict.fromkeys(row.metric for row in rows):
        own = [row for row in rows if row.metric == metric]
        verdicts = [row.verdict for row in own]
        judged, told = verdicts.count(Verdict.PASS) + verdicts.count(Verdict.FAIL), verdicts.count(Verdict.INFO)
        yield GateUse(
            title=TITLES.get(metric, metric.replace("_", " ")),
            asks=ASKS.get(metric, ""),
            thresholds=tuple(dict.fromkeys(asked(row) for row in own)),
            judged=judged,
            failed=verdicts.count(Verdict.FAIL),
            without=verdicts.count(Verdict.NOT_JUDGED) + verdicts.count(Verdict.NOT_RUN),
            told=told,
            means=("in part" if told else "yes") if judged else "no" if told else "judged nothing",
        )


def told_because(found: Judged) -> Iterator[tuple[str, str]]:
    """Yield why metrics are only told, and which those are."""
    reasons: dict[str, dict[str, None]] = {}
    for comparison, rows in found:
        for row in rows:
            if row.verdict == Verdict.INFO and row.metric in comparison.informs:
                title = TITLES.get(row.metric, row.metric.replace("_", " "))
                reasons.setdefault(comparison.informs[row.metric], {})[title] = None
    for reason, titles in reasons.items():
        yield reason, ", ".join(titles)


def weights_note(manifest: Manifest) -> str:
    """Return what verdicts on these weights can mean at all; empty for weights that were trained."""
    if manifest.checkpoint.seed is None:
        return ""
    return (
        "The weights are random. Parity means what it always means: both sides are the same network, so wrong graphs, "
        "wrong types and rounding show. But random activations are tamer than trained ones, so a reduced precision "
        "that passes here may still overflow with real weights, and what the model finds in a picture proves nothing."
    )

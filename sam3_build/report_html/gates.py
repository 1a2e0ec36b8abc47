"""A manifest and its verdicts in; which gates judged what, and what each means with these weights, out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sam3_build.compare.judge import FAIL, INFO, NOT_JUDGED, NOT_RUN, PASS
from sam3_build.compare.trust import Judged
from sam3_build.manifest.types import Manifest
from sam3_build.report import TITLES, asked

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
    """A gate and what became of it. meaning: why it is told and not judged with these weights, or that it is judged."""

    title: str
    asks: str
    thresholds: tuple[str, ...]
    judged: int
    failed: int
    without: int
    meaning: str


def gate_uses(manifest: Manifest, found: Judged) -> Iterator[GateUse]:
    """Yield every metric that has a threshold, in the order in which the comparisons have it."""
    rows = [(c, row) for c, judged in found for row in judged if row.threshold is not None]
    for metric in dict.fromkeys(row.metric for _, row in rows):
        own = [(c, row) for c, row in rows if row.metric == metric]
        verdicts = [row.verdict for _, row in own]
        informs = dict.fromkeys(c.informs[metric] for c, _ in own if metric in c.informs)
        judged = verdicts.count(PASS) + verdicts.count(FAIL)
        told = f"{verdicts.count(INFO)} are information: {'; '.join(informs)}" if informs else ""
        yield GateUse(
            TITLES.get(metric, metric.replace("_", " ")),
            ASKS.get(metric, ""),
            tuple(dict.fromkeys(asked(row) for _, row in own)),
            judged,
            verdicts.count(FAIL),
            verdicts.count(NOT_JUDGED) + verdicts.count(NOT_RUN),
            told or _meaning(manifest, judged),
        )


def _meaning(manifest: Manifest, judged: int) -> str:
    if not judged:
        return "nothing was judged"
    return "judged" if manifest.checkpoint.seed is None else "judged: both sides are the same network"


def weights_note(manifest: Manifest) -> str:
    """Return what verdicts on these weights can mean at all; empty for weights that were trained."""
    if manifest.checkpoint.seed is None:
        return ""
    return (
        "The weights are random. Parity means what it always means: both sides are the same network, so wrong graphs, "
        "wrong types and rounding show. But random activations are tamer than trained ones, so a reduced precision "
        "that passes here may still overflow with real weights, and what the model finds in a picture proves nothing."
    )

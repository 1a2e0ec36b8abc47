"""Takes a manifest and its verdicts; says which gates judged what, and what each means with these weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sam3_build.compare.dependencies import Judged
from sam3_build.compare.judge import Verdict, asked
from sam3_build.compare.metrics import metric_of
from sam3_build.manifest.types import Manifest


@dataclass(frozen=True)
class GateUse:
    """A gate and in how many outputs it judged, failed, had no verdict, was only shown; whether it means something."""

    title: str
    asks: str
    thresholds: tuple[str, ...]
    judged: int
    failed: int
    without: int
    info: int
    means: str


def gate_uses(found: Judged) -> Iterator[GateUse]:
    """Yield every metric that has a threshold, in the comparisons' order."""
    rows = [(metric_of(c, row.metric), row) for c, judged in found for row in judged if row.threshold is not None]
    for metric in dict.fromkeys(metric for metric, _ in rows):
        own = [row for declared, row in rows if declared == metric]
        verdicts = [row.verdict for row in own]
        judged, info = verdicts.count(Verdict.PASS) + verdicts.count(Verdict.FAIL), verdicts.count(Verdict.INFO)
        yield GateUse(
            title=metric.title,
            asks=metric.asks,
            thresholds=tuple(dict.fromkeys(asked(row) for row in own)),
            judged=judged,
            failed=verdicts.count(Verdict.FAIL),
            without=verdicts.count(Verdict.NOT_JUDGED) + verdicts.count(Verdict.NOT_RUN),
            info=info,
            means=("in part" if info else "yes") if judged else "no" if info else "judged nothing",
        )


def info_reasons(found: Judged) -> Iterator[tuple[str, str]]:
    """Yield why metrics are only shown, and which those are."""
    reasons: dict[str, dict[str, None]] = {}
    for comparison, rows in found:
        for row in rows:
            if row.verdict == Verdict.INFO and row.metric in comparison.informs:
                reasons.setdefault(comparison.informs[row.metric], {})[metric_of(comparison, row.metric).title] = None
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

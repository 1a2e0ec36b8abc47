"""Which comparison depends on which, and how a failure propagates: FP32 graph, FP32 engine, reduced precision. Pure.

A comparison that depends on one that failed proves nothing: an FP16 engine that agrees with a wrong FP32 graph is
wrong, and one that differs from it may be right. So its rows become *not judged* and name the comparison that failed
first; their values stay, for whoever looks for the fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from sam3_build.compare.judge import Row, Verdict
from sam3_build.spec import BASELINE, Comparison

# In the reason of a row that is not judged, what comes before its own failure.
ALSO_FAILED = "; its own gate failed too: "

# Every comparison of a plan with its rows.
Judged = Sequence[tuple[Comparison, tuple[Row, ...]]]


def of_component(
    component: str, precision: str, target: str | None, *, fp32_engines: bool, suffix: str = ""
) -> tuple[str, ...]:
    """Return the names of the comparisons that a component's depends on; those of other targets are not among them.

    component: or the label of a pipeline
    fp32_engines: whether the manifest builds FP32 for its targets
    suffix: of the names of all
    """
    if precision == BASELINE:
        sides: tuple[str, ...] = () if target is None else (BASELINE,)
    elif target is None:
        sides = (BASELINE,)
    else:
        sides = (BASELINE, *((f"{BASELINE}.{target}",) if fp32_engines else ()), precision)
    return tuple(f"{component}.{side}{suffix}" for side in sides)


def of_pipeline(
    label: str,
    components: Iterable[tuple[str, str]],
    precision: str,
    target: str | None,
    *,
    fp32_engines: bool,
    suffix: str = "",
) -> tuple[str, ...]:
    """Return the names of the comparisons that a pipeline's depends on: its components', then as for a component.

    components: each with the suffix of its comparisons in this pipeline
    suffix:     of the pipeline's own
    """
    side = f"{precision}.{target}" if target else precision
    own = of_component(label, precision, target, fp32_engines=fp32_engines, suffix=suffix)
    return (*(f"{component}.{side}{suffix}" for component, suffix in components), *own)


def propagate_failures(judged: Judged) -> Judged:
    """Return `judged` with the rows of what depends on a failure *not judged*; those *not run* stay so.

    A failure propagates along the whole chain under its own name. What was not run stops nothing.
    """
    by_name = {comparison.name: (comparison, rows) for comparison, rows in judged}
    assert len(by_name) == len(judged), "two comparisons of one name"
    causes: dict[str, tuple[str, ...]] = {}

    def failed(name: str) -> tuple[str, ...]:
        """Return the failures that make `name` worthless, itself where it fails and depends on no other failure."""
        if name not in causes:
            comparison, rows = by_name[name]
            deeper = _above(comparison)
            causes[name] = deeper or ((name,) if any(row.verdict == Verdict.FAIL for row in rows) else ())
        return causes[name]

    def _above(comparison: Comparison) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cause for dependency in comparison.depends_on for cause in failed(dependency)))

    return [
        (comparison, tuple(_not_judged(row, [by_name[cause][0] for cause in above]) for row in rows))
        if (above := _above(comparison))
        else (comparison, rows)
        for comparison, rows in judged
    ]


def _not_judged(row: Row, causes: Sequence[Comparison]) -> Row:
    if row.verdict == Verdict.NOT_RUN:
        return row
    first = f'{causes[0].component} failed in "{causes[0].label}"'
    others = f" (and {', '.join(c.name for c in causes[1:])})" if causes[1:] else ""
    own = f"{ALSO_FAILED}{row.reason}" if row.verdict == Verdict.FAIL else ""
    return replace(row, verdict=Verdict.NOT_JUDGED, reason=f"not judged, since {first}{others}{own}")

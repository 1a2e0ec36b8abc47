"""Takes statistics, returns bars on a logarithmic axis, in percent of its width. Draws nothing: the template does.

A bar is the largest error of an output, in standard deviations of the reference, because that can be measured for every
precision alike; the mark on it is what the gate allows, in the same unit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sam3_build.compare.judge import Row, outcome
from sam3_build.spec import Json

UNIT = "max_abs_over_std"
# A log axis over more decades than this says nothing about the last one, which is the one that matters.
MOST_DECADES = 12
LABELS = 4


@dataclass(frozen=True)
class Error:
    """The largest error of one output in one comparison, in standard deviations; `allowed` is its gate's, if any."""

    output: str
    side: str
    value: float | None
    allowed: float | None
    verdict: str
    text: str


@dataclass(frozen=True)
class Bar:
    """One error as it is drawn: how far its bar and its mark reach, in percent. None: there is nothing to draw."""

    error: Error
    reach: float | None
    mark: float | None


@dataclass(frozen=True)
class Axis:
    """Decades from 10**low to 10**high; ticks are (percent, exponent, whether it is labelled)."""

    low: int
    high: int

    def percent(self, value: float) -> float:
        """Return where a positive value lies, within 0 and 100."""
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return round(100 * min(max(share, 0.0), 1.0), 2)

    @property
    def ticks(self) -> tuple[tuple[float, int, bool], ...]:
        """Every decade, of which a few are labelled."""
        decades = range(self.low, self.high + 1)
        every = math.ceil(len(decades) / LABELS)
        return tuple((self.percent(10.0**d), d, (self.high - d) % every == 0) for d in decades)


def error(output: str, side: str, found: Mapping[str, Json], rows: Sequence[Row]) -> Error | None:
    """Return the error of an output whose statistics are `found`; None where such an error has no meaning."""
    metrics = found.get("metrics")
    verdict = outcome(rows)
    if not isinstance(metrics, Mapping):
        return None
    if isinstance(unequal := metrics.get("mismatches"), int | float):
        return Error(output, side, None, None, verdict, f"{unequal:.0f} of {found.get('elements')} differ")
    if UNIT not in metrics:
        return None
    value = _number(metrics[UNIT])
    text = "not measured" if value is None else "equal" if value == 0 else f"{value:.2g}"
    if nonfinite := _number(metrics.get("nonfinite")):
        text = f"{nonfinite:.0f} NaN or Inf"
    return Error(output, side, value, _allowed(metrics, rows), verdict, text)


def axis(errors: Iterable[Error]) -> Axis:
    """Return the axis on which all these errors and what their gates allow can be seen."""
    logs = [math.log10(v) for e in errors for v in (e.value, e.allowed) if v]
    high = math.ceil(max(logs, default=0.0))
    low = max(math.floor(min(logs, default=-6.0)), high - MOST_DECADES)
    return Axis(low if low < high else high - 1, high)


def bars(errors: Iterable[Error], on: Axis) -> tuple[Bar, ...]:
    """Place errors on an axis. The smallest bar is still one that can be seen."""
    return tuple(
        Bar(e, max(on.percent(e.value), 0.6) if e.value else None, on.percent(e.allowed) if e.allowed else None)
        for e in errors
    )


def _allowed(metrics: Mapping[str, Json], rows: Sequence[Row]) -> float | None:
    """Return what a gate allows, in standard deviations: a gate on the range is converted."""
    limits = {row.metric: row.threshold for row in rows if isinstance(row.threshold, int | float)}
    if UNIT in limits:
        return _number(limits[UNIT])
    limit, by_std, by_range = limits.get("max_abs_over_range"), metrics.get(UNIT), metrics.get("max_abs_over_range")
    if isinstance(limit, int | float) and isinstance(by_std, int | float) and isinstance(by_range, int | float):
        return float(limit * by_std / by_range) if by_range else None
    return None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

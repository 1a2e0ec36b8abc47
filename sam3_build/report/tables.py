"""Takes judged comparisons; returns a table, a line per output and a column per metric, for terminal and page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from itertools import groupby

from sam3_build.compare.dependencies import Judged
from sam3_build.compare.judge import ALWAYS, WORST_FIRST, Row, Verdict, asked, outcome
from sam3_build.compare.metrics import metric_of
from sam3_build.plugins import Metric
from sam3_build.spec import Comparison

# Metrics that decide nothing while they pass: no NaN, the right shape.
QUIET = frozenset(gate.metric for gate in ALWAYS)


@dataclass(frozen=True)
class Cell:
    """A metric of an output. text: empty if it was not measured; asked: the threshold, where not the column's."""

    text: str
    asked: str
    verdict: Verdict


@dataclass(frozen=True)
class Line:
    """An output in a comparison: its cells by column, and why it did not pass."""

    output: str
    verdict: Verdict
    cells: tuple[Cell | None, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """A comparison and the lines of its outputs."""

    comparison: Comparison
    verdict: Verdict
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Table:
    """Comparisons side by side. columns: (the metric's title, what its gates usually ask for)."""

    title: str
    columns: tuple[tuple[str, str], ...]
    parts: tuple[Part, ...]


def table(
    title: str, found: Judged, hidden: Collection[str] = QUIET, why: Callable[[Row], str] = lambda row: row.reason or ""
) -> Table:
    """Return the table of comparisons whose rows are given, in their order; they share one kind of result, if any.

    hidden: metrics without a column as long as none of them fails
    why:    a row's reason; one that was given for an earlier line is left out, unless the row fails
    """
    rows = [row for _, judged in found for row in judged]
    usual = {m: Counter(asked(r) for r in rows if r.metric == m).most_common(1)[0][0] for m in metrics(rows, hidden)}
    declared = {row.metric: metric_of(comparison, row.metric) for comparison, judged in found for row in judged}
    said: set[str] = set()
    parts = []
    for comparison, judged in found:
        lines = []
        for output, group in groupby(judged, key=lambda row: row.output):
            own = list(group)
            by_metric = {row.metric: row for row in own}
            cells = tuple(_cell(by_metric[m], declared[m], usual[m]) if m in by_metric else None for m in usual)
            reasons = dict.fromkeys(
                r for row in own if (r := why(row)) and (r not in said or row.verdict == Verdict.FAIL)
            )
            said.update(why(row) for row in own if row.verdict != Verdict.FAIL)
            lines.append(Line(output, outcome(own), cells, tuple(reasons)))
        parts.append(Part(comparison, outcome(judged), tuple(lines)))
    return Table(title, tuple((declared[m].title, threshold) for m, threshold in usual.items()), tuple(parts))


def metrics(rows: Iterable[Row], hidden: Collection[str] = QUIET) -> tuple[str, ...]:
    """Return the metrics that have a column, in the order of the rows."""
    return tuple(dict.fromkeys(row.metric for row in rows if row.verdict == Verdict.FAIL or row.metric not in hidden))


def worst_first(shown: Table) -> Table:
    """Return a table with its comparisons, and the lines of each, in the order of their verdicts."""

    def rank(item: Part | Line) -> int:
        return WORST_FIRST.index(item.verdict)

    parts = [replace(part, lines=tuple(sorted(part.lines, key=rank))) for part in shown.parts]
    return replace(shown, parts=tuple(sorted(parts, key=rank)))


def _cell(row: Row, metric: Metric, usual: str) -> Cell:
    text = "" if row.value is None else format(row.value, metric.form)
    return Cell(text, "" if asked(row) == usual else asked(row), row.verdict)

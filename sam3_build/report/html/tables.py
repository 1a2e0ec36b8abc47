"""Comparisons of a component and their rows in, tables for the page out: a line per output, a column per metric."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from sam3_build.compare.dependencies import ALSO_FAILED, Judged
from sam3_build.compare.judge import ALWAYS, WORST_FIRST, Row, Verdict, outcome
from sam3_build.report.html.sources import Sources, side
from sam3_build.report.table import TITLES, asked, shown
from sam3_build.spec import Comparison


@dataclass(frozen=True)
class Cell:
    """A metric of an output: what was measured, what was asked for where that is not the column's, the verdict."""

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
    anchor: str


@dataclass(frozen=True)
class Part:
    """A comparison that was measured: its lines, the worst ones first."""

    component: str
    label: str
    verdict: Verdict
    lines: tuple[Line, ...]
    command: str


@dataclass(frozen=True)
class Table:
    """Comparisons by the same metrics. columns: (title, what its gate usually asks for)."""

    summary: str
    verdict: Verdict
    columns: tuple[tuple[str, str], ...]
    parts: tuple[Part, ...]


def tables(known: Sources, found: Judged) -> Iterator[Table]:
    """Yield a table per set of metrics. Metrics that decide nothing (no NaN, the right shape) are left out."""
    together: dict[tuple[str, ...], list[tuple[Comparison, tuple[Row, ...]]]] = {}
    for comparison, rows in found:
        metrics = tuple(dict.fromkeys(row.metric for row in _seen(rows)))
        together.setdefault(metrics, []).append((comparison, rows))
    for metrics, members in together.items():
        every = [row for _, rows in members for row in rows]
        usual = {m: Counter(asked(r) for r in every if r.metric == m).most_common(1)[0][0] for m in metrics}
        said: set[str] = set()
        parts = tuple(_part(known, comparison, rows, usual, said) for comparison, rows in members)
        columns = tuple((TITLES.get(m, m.replace("_", " ")), asking) for m, asking in usual.items())
        ordered = tuple(sorted(parts, key=lambda part: WORST_FIRST.index(part.verdict)))
        sides = dict.fromkeys(side(comparison) for comparison, _ in members)
        yield Table(f"Values: {', '.join(sides)}", ordered[0].verdict, columns, ordered)


def _seen(rows: Sequence[Row]) -> Iterator[Row]:
    quiet = {gate.metric for gate in ALWAYS}
    yield from (row for row in rows if row.verdict == Verdict.FAIL or row.metric not in quiet)


def _part(
    known: Sources, comparison: Comparison, rows: Sequence[Row], usual: Mapping[str, str], said: set[str]
) -> Part:
    """Return a comparison's lines; what was `said` of another line is not repeated, but for a failure."""
    lines = []
    for output, group in groupby(rows, key=lambda row: row.output):
        judged = list(group)
        found = {row.metric: row for row in judged}
        cells = tuple(_cell(found[m], usual[m]) if m in found else None for m in usual)
        reasons = dict.fromkeys(
            r for row in judged if (r := _own_reason(row)) and (r not in said or row.verdict == Verdict.FAIL)
        )
        said.update(reasons)
        verdict = outcome(judged)
        lines.append(Line(output, verdict, cells, tuple(reasons), f"{comparison.name}.{output}"))
    verdict = outcome(rows)
    lines.sort(key=lambda line: WORST_FIRST.index(line.verdict))
    return Part(comparison.component, comparison.label, verdict, tuple(lines), known.command(comparison))


def _own_reason(row: Row) -> str:
    """Return why a row did not pass; of what was not judged for another's sake, what it would have failed for."""
    return (row.reason or "").partition(ALSO_FAILED)[2] if row.verdict == Verdict.NOT_JUDGED else row.reason or ""


def _cell(row: Row, usual: str) -> Cell:
    text = "not measured" if row.value is None else shown(row.metric, row.value)
    return Cell(text, "" if asked(row) == usual else asked(row), row.verdict)

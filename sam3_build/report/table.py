"""The report: a plan's comparisons and their statistics in, `report.json` and a terminal table out. Reads records only.

The table is laid out here and not with rich, whose import alone costs a quarter of what a whole no-op may take.
"""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TextIO

from sam3_build.compare import reference_gap
from sam3_build.compare.dependencies import Judged, propagate_failures
from sam3_build.compare.judge import ALWAYS, RANGE_PARITY, RANGE_PARITY_NOTE, Row, Verdict, condition, judge, outcome
from sam3_build.errors import BuildError
from sam3_build.folders import write_atomically
from sam3_build.spec import TYPES, Gate, Json, Plan
from sam3_build.store.objects import writing

# What a column is called; `max_abs_over_std` reads badly in a table.
TITLES = {
    "max_abs_over_std": "max abs/std",
    "max_abs_over_range": "max abs/range",
    "std_ratio": "std ratio",
    "mismatches": "unequal",
    "count": "lost or new",
    "mask_iou": "mask IoU",
    "box_iou": "box IoU",
    "score": "score diff",
    "gemms": "wrong GEMMs",
    "low_gemms": "low GEMMs",
    "low_share": "of weights",
}
WIDTH = 100


@dataclass(frozen=True)
class Counts:
    """How many outputs passed all their gates, failed one, or were not compared because this machine cannot.

    Not judged are those that depend on one that failed; info, those that are told whatever their values.
    """

    passed: int
    failed: int
    not_run: int
    not_judged: int = 0
    info: int = 0

    def __str__(self) -> str:
        """Return the line that ends the table."""
        not_judged = f", {self.not_judged} not judged" if self.not_judged else ""
        info = f", {self.info} for information" if self.info else ""
        return f"{self.passed} passed, {self.failed} failed{not_judged}, {self.not_run} not run{info}"


def report(plan: Plan, found: Judged, read: Callable[[str], Path | None], path: Path, out: TextIO) -> Counts:
    """Write the rows of `found`, what `judged` returned, to `path` when they changed; print the table to `out`.

    The plan's contrasts are told in both places, and count for nothing.

    read: action name -> the folder of its output, or None when there is none
    """
    rows = [row for _, judged_rows in found for row in judged_rows]
    told = [(c, _statistics(c.action, read)) for c in plan.contrasts]
    write([*rows, *(row for c, statistics in told if statistics for row in reference_gap.rows(c, statistics))], path)
    out.write(render(rows, [line for c, statistics in told for line in (*reference_gap.lines(c, statistics), "")]))
    return count(rows)


def judged(plan: Plan, read: Callable[[str], Path | None]) -> Judged:
    """Return every comparison of `plan` with its rows, failures propagated: the verdicts that every report shows."""
    return propagate_failures([(c, judge(c, _statistics(c.action, read))) for c in plan.comparisons])


def _statistics(action: str | None, read: Callable[[str], Path | None]) -> Mapping[str, Json] | None:
    folder = read(action) if action else None
    if folder is None:
        return None
    file = folder / "statistics.json"
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise BuildError(
            f"the output of {action} cannot be read ({file.name}: {error}); run `doit {action}`"
        ) from error
    assert isinstance(found, dict)
    return found


def write(rows: Iterable[Row], path: Path) -> None:
    """Write the rows as JSON, atomically, and only when that changes the file."""
    data = (json.dumps([asdict(row) for row in rows], indent=1, allow_nan=False) + "\n").encode()
    with writing(path):
        if not path.is_file() or path.read_bytes() != data:
            write_atomically(path, data)


def count(rows: Iterable[Row]) -> Counts:
    """Count outputs, each by its worst verdict."""
    verdicts = Counter(outcome(lines) for _, lines in groupby(rows, key=_line))
    return Counts(
        *(
            verdicts[verdict]
            for verdict in (Verdict.PASS, Verdict.FAIL, Verdict.NOT_RUN, Verdict.NOT_JUDGED, Verdict.INFO)
        )
    )


def _line(row: Row) -> tuple[str, str, str]:
    return row.component, row.comparison, row.output


# ------------------------------------------------------------------ the table


def render(rows: Sequence[Row], told: Sequence[str] = ()) -> str:
    """Return the rows as text: a table per comparison, a line per output, why one failed; last, the counts.

    What is `told` and not judged stands above the counts, which leave it out.
    """
    measured = {_line(row) for row in rows if row.verdict != Verdict.NOT_RUN}
    ran = [row for row in rows if _line(row) in measured]
    lines: list[str] = []
    for label in dict.fromkeys(row.comparison for row in ran):
        of_label = [row for row in ran if row.comparison == label]
        types = [row for row in of_label if row.output == TYPES]
        lines += _table(label, [row for row in of_label if row.output != TYPES])
        lines += [*(_table(label, types)[1:] if types else []), ""]
    if any(RANGE_PARITY in row.comparison for row in ran):
        lines += [*textwrap.wrap(RANGE_PARITY_NOTE, WIDTH, subsequent_indent="  "), ""]
    not_run = [row for row in rows if _line(row) not in measured]
    for reason in dict.fromkeys(row.reason for row in not_run):
        lines += [*_not_run(reason, [row for row in not_run if row.reason == reason]), ""]
    return "\n".join([*lines, *told, str(count(rows))]) + "\n"


def _table(label: str, rows: list[Row]) -> list[str]:
    """Return one comparison's lines. A column is a metric, headed by its usual threshold; other thresholds stand beside
    their values. What is hardly ever wrong (NaN, shapes, rows of a batch) is left out until it is.
    """
    quiet = {"rows", *(gate.metric for gate in ALWAYS)}
    shown = [row for row in rows if row.verdict == Verdict.FAIL or row.metric not in quiet]
    usual: dict[str, str] = {}
    for metric in dict.fromkeys(row.metric for row in shown):
        usual[metric] = Counter(asked(row) for row in shown if row.metric == metric).most_common(1)[0][0]
    table = [["", "component", "output", *(TITLES.get(m, m) for m in usual)], ["", "", "", *usual.values()]]
    reasons: list[list[str]] = [[], []]
    said: set[str] = set()  # what goes for many outputs is told once
    for (component, _, output), group in groupby(rows, key=_line):
        judged = list(group)
        found = {row.metric: row for row in judged}
        cells = [_cell(found[metric], usual[metric]) if metric in found else "" for metric in usual]
        verdict = outcome(judged)
        table.append([verdict.upper() if verdict == Verdict.FAIL else verdict.words, component, output, *cells])
        reasons.append(list(dict.fromkeys(row.reason for row in judged if row.reason and row.reason not in said)))
        said.update(row.reason for row in judged if row.reason and row.verdict != Verdict.FAIL)
    if not rows:
        return [label]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [label]
    for cells, why in zip(table, reasons, strict=True):
        lines.append("  " + "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
        for reason in why:
            lines += textwrap.wrap(reason, WIDTH, initial_indent="        - ", subsequent_indent="          ")
    return lines


def asked(row: Row) -> str:
    """Return what a row's gate asks for; empty when it has none."""
    return "" if row.threshold is None else condition(Gate(row.metric, row.threshold))


def _cell(row: Row, usual: str) -> str:
    if row.value is None:
        return "-"
    value = shown(row.metric, row.value)
    return value if asked(row) == usual else f"{value} {asked(row)}"


def shown(metric: str, value: float) -> str:
    """Return a measured value as people read it."""
    return f"{value:.5f}" if metric in ("cosine", "std_ratio", "mask_iou", "box_iou") else f"{value:.3g}"


def _not_run(reason: str | None, rows: list[Row]) -> list[str]:
    lines = textwrap.wrap(f"not run: {reason}", WIDTH, subsequent_indent="  ")
    for label in dict.fromkeys(row.comparison for row in rows):
        components = dict.fromkeys(row.component for row in rows if row.comparison == label)
        lines += textwrap.wrap(
            f"{label}: {', '.join(components)}", WIDTH, initial_indent="  ", subsequent_indent="    "
        )
    return lines

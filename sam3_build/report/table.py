"""Takes a plan's comparisons and their statistics; writes `report.json` and the tables of a terminal. Runs nothing.

The text is laid out here and not with rich, whose import alone costs a quarter of what a whole no-op may take.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TextIO

from sam3_build.compare.dependencies import Judged, propagate_failures
from sam3_build.compare.judge import RANGE_PARITY, RANGE_PARITY_NOTE, Row, Verdict, judge, outcome
from sam3_build.errors import BuildError
from sam3_build.folders import write_atomically
from sam3_build.report.tables import QUIET, Cell, Table, table
from sam3_build.report.text import wrapped
from sam3_build.spec import TYPES, Json, Kind, Plan
from sam3_build.store.writing import writing

HIDDEN = QUIET | {"rows"}  # hardly ever wrong, and so without a column until it is


@dataclass(frozen=True)
class Counts:
    """How many outputs passed all their gates, failed one, or were not compared because this machine cannot.

    Not judged are those that depend on one that failed; info, those that are shown whatever their values.
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
    """Write the rows of `found`, what `judged` returned, to `path` when they changed; print the tables to `out`.

    read: action name -> the folder of its output, or None when there is none
    """
    rows = [row for _, judged_rows in found for row in judged_rows]
    data = (json.dumps([asdict(row) for row in rows], indent=1, allow_nan=False) + "\n").encode()
    with writing(path):
        if not path.is_file() or path.read_bytes() != data:
            write_atomically(path, data)
    out.write(render(found))
    return count(rows)


def judged(plan: Plan, read: Callable[[str], Path | None]) -> Judged:
    """Return every comparison of `plan` with its rows, after those that it depends on. All reports share these."""
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


# ------------------------------------------------------------------ the tables


def render(found: Judged) -> str:
    """Return the verdicts as text: a table per label, a line per output, why one failed; then what ran and passed, what
    did not run and why, and the counts.
    """
    rows = [row for _, judged_rows in found for row in judged_rows]
    measured = {_line(row) for row in rows if row.verdict != Verdict.NOT_RUN}
    ran = [(c, own) for c, judged_rows in found if (own := [row for row in judged_rows if _line(row) in measured])]
    lines: list[str] = []
    for label in dict.fromkeys(c.label for c, _ in ran):
        lines.append(label)
        for types in (False, True):
            part = [(c, tuple(r for r in own if (r.output == TYPES) == types)) for c, own in ran if c.label == label]
            lines += _drawn(table(label, part, HIDDEN))
        lines.append("")
    if any(RANGE_PARITY in c.label for c, _ in ran):
        lines += [*wrapped(RANGE_PARITY_NOTE, then="  "), ""]
    if passed := _passed(found):
        lines += [*wrapped(f"run and passed: {'; '.join(passed)}", then="  "), ""]
    not_run = [row for row in rows if _line(row) not in measured]
    for reason in dict.fromkeys(row.reason for row in not_run):
        lines += [*_not_run(reason, [row for row in not_run if row.reason == reason]), ""]
    return "\n".join([*lines, str(count(rows))]) + "\n"


def _passed(found: Judged) -> list[str]:
    """Return what ran and passed all its gates, in what precisions: engines of targets first, then graphs."""
    sides: dict[tuple[str, str], list[Verdict]] = {}
    for comparison, rows in found:
        if comparison.kind in (Kind.PARITY, Kind.RESULT):
            verdicts = [outcome(lines) for _, lines in groupby(rows, key=_line)]
            sides.setdefault((comparison.target or "", comparison.precision), []).extend(verdicts)
    good: dict[str, list[str]] = {}
    for (target, precision), verdicts in sides.items():
        if Verdict.PASS in verdicts and set(verdicts) <= {Verdict.PASS, Verdict.INFO}:
            good.setdefault(target, []).append(precision)
    graphs = [f"graphs {', '.join(good.pop(''))} on ONNX Runtime"] if "" in good else []
    return [f"engines {target} {', '.join(precisions)}" for target, precisions in good.items()] + graphs


def _drawn(shown: Table) -> list[str]:
    """Return a table without its title; thresholds that are not the column's stand beside their values."""
    texts = [["", "component", "output", *(title for title, _ in shown.columns)]]
    texts.append(["", "", "", *(threshold for _, threshold in shown.columns)])
    reasons: list[tuple[str, ...]] = [(), ()]
    for part in shown.parts:
        for line in part.lines:
            cells = [_text(cell) if cell else "" for cell in line.cells]
            verdict = line.verdict.upper() if line.verdict == Verdict.FAIL else line.verdict.words
            texts.append([verdict, part.comparison.component, line.output, *cells])
            reasons.append(line.reasons)
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    drawn = []
    for cells, why in zip(texts, reasons, strict=True):
        drawn.append("  " + "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
        for reason in why:
            drawn += wrapped(reason, "        - ", "          ")
    return drawn if len(texts) > 2 else []


def _text(cell: Cell) -> str:
    return f"{cell.text} {cell.asked}".rstrip() if cell.text else "-"


def _not_run(reason: str | None, rows: list[Row]) -> list[str]:
    lines = wrapped(f"not run: {reason}", then="  ")
    for label in dict.fromkeys(row.comparison for row in rows):
        components = dict.fromkeys(row.component for row in rows if row.comparison == label)
        lines += wrapped(f"{label}: {', '.join(components)}", "  ", "    ")
    return lines

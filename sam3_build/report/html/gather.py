"""Takes what is known of a plan and its verdicts; returns the page as nested data, in the order in which it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from sam3_build.compare.dependencies import ALSO_FAILED, Judged
from sam3_build.compare.judge import RANGE_PARITY, RANGE_PARITY_NOTE, Row, Verdict, outcome, worst
from sam3_build.report.html.artifacts import Artifacts, artifacts
from sam3_build.report.html.chart import Axis, Bar, Error, axis, bars, error
from sam3_build.report.html.gates import GateUse, gate_uses, info_reasons, weights_note
from sam3_build.report.html.pictures import Pictures, pictures
from sam3_build.report.html.sources import GRAPH, Sources, side
from sam3_build.report.table import Counts, count
from sam3_build.report.tables import Line, Part, Table, metrics, table, worst_first
from sam3_build.spec import Comparison, Kind

WORDS: dict[str, str] = {
    Verdict.FAIL: "failed",
    Verdict.NOT_JUDGED: "not judged",
    Verdict.NOT_RUN: "not run",
    Verdict.PASS: "passed",
    Verdict.INFO: "information",
}


@dataclass(frozen=True)
class Section:
    """A component: its tables, the bars of their errors by output, and the comparisons that were not run."""

    component: str
    verdict: Verdict
    counts: Counts
    tables: tuple[Table, ...]
    plot: tuple[tuple[str, tuple[Bar, ...]], ...]
    not_run: tuple[str, ...]


@dataclass(frozen=True)
class Standing:
    """A target in a precision. parts: by component its verdict and counts, None where nothing is compared."""

    precision: str
    verdict: Verdict
    parts: tuple[tuple[str, Counts] | None, ...]


@dataclass(frozen=True)
class TargetVerdict:
    """A target and how it stands in each precision."""

    name: str
    note: str
    verdict: Verdict
    standings: tuple[Standing, ...]


@dataclass(frozen=True)
class Group:
    """Comparisons that share a reason for having no verdict. sides: (what is compared, components)."""

    reason: str
    sides: tuple[tuple[str, str], ...]
    commands: tuple[str, ...]
    comparisons: int
    outputs: int


@dataclass(frozen=True)
class Page:
    """All that the template shows."""

    manifest: str
    facts: tuple[tuple[str, str], ...]
    tone: str
    headline: str
    subline: str
    counts: Counts
    words: dict[str, str]
    parts: tuple[str, ...]
    targets: tuple[TargetVerdict, ...]
    failed: tuple[str, ...]
    unverified: tuple[str, ...]
    failures: tuple[tuple[Part, Line], ...]
    not_judged: tuple[Group, ...]
    not_run: tuple[Group, ...]
    sections: tuple[Section, ...]
    axis: Axis
    pictures: Pictures
    weights: str
    range_parity: str
    gates: tuple[GateUse, ...]
    info: tuple[tuple[str, str], ...]
    artifacts: Artifacts
    verify: str
    command: Callable[[Comparison], str]


def gather(known: Sources, found: Judged) -> Page:
    """Return the page of these verdicts."""
    rows = [row for _, judged in found for row in judged]
    counts = count(rows)
    parts = tuple(dict.fromkeys(c.component for c, _ in sorted(found, key=lambda f: f[0].kind != Kind.RESULT)))
    errors = {id(c): _errors(known, c, judged) for c, judged in found if _ran(judged) and c.kind != Kind.GAP}
    scale = axis(e for some in errors.values() for e in some)
    sections = tuple(_section(known, part, found, errors, scale) for part in parts)
    measured = [part for section in sections for shown in section.tables for part in shown.parts]
    targets = tuple(_targets(known, found, parts))
    # A reference gap is reported whatever it is: it takes nothing from what was judged.
    tone, headline, subline = _headline(count(row for c, judged in found if c.kind != Kind.GAP for row in judged))
    return Page(
        manifest=known.manifest.name,
        facts=tuple(_facts(known)),
        tone=tone,
        headline=headline,
        subline=subline,
        counts=counts,
        words=WORDS,
        parts=parts,
        targets=targets,
        failed=tuple(t.name for t in targets if t.verdict == Verdict.FAIL),
        unverified=tuple(t.name for t in targets if t.name != GRAPH and t.verdict not in (Verdict.PASS, Verdict.FAIL)),
        failures=tuple((p, line) for p in measured for line in p.lines if line.verdict == Verdict.FAIL),
        not_judged=tuple(_groups(known, found, Verdict.NOT_JUDGED)),
        not_run=tuple(_groups(known, found, Verdict.NOT_RUN)),
        sections=sections,
        axis=scale,
        pictures=pictures(known, found),
        weights=weights_note(known.manifest),
        range_parity=RANGE_PARITY_NOTE if any(RANGE_PARITY in p.comparison.label for p in measured) else "",
        gates=tuple(gate_uses(found)),
        info=tuple(info_reasons(found)),
        artifacts=artifacts(known),
        verify=f"{known.call} verify",
        command=known.command,
    )


# ------------------------------------------------------------------ verdicts


def _headline(counts: Counts) -> tuple[str, str, str]:
    """Return the verdict that colours the page's head, what it says, and what has to be said with it."""
    every = counts.passed + counts.failed + counts.not_judged + counts.not_run + counts.info
    judged = counts.passed + counts.failed
    if counts.failed:
        left = f" Without a verdict: {every - judged} of {every}." if every > judged else ""
        return (
            Verdict.FAIL,
            f"{_outputs(counts.failed)} failed",
            f"{counts.passed} of the {judged} judged passed.{left}",
        )
    if not every:
        return Verdict.NOT_RUN, "Nothing is compared", "The manifest builds nothing that a gate judges."
    if not counts.passed:
        return Verdict.NOT_RUN, "Nothing was judged", f"None of {_outputs(every)} has a verdict."
    if counts.not_run or counts.not_judged:
        most = counts.not_run + counts.not_judged > counts.passed
        said = "Mostly not verified" if most else "Not all verified"
        without = f"{counts.not_run} of {every} outputs were not run on this machine; nothing is known of them."
        return Verdict.NOT_RUN, said, f"No gate failed, and {counts.passed} passed, but {without}"
    if counts.info:
        note = f"{_outputs(counts.info)} {'is' if counts.info == 1 else 'are'} for information only."
        return Verdict.INFO, f"All {_outputs(counts.passed)} that could be judged passed", note
    return (
        Verdict.PASS,
        f"All {_outputs(counts.passed)} passed",
        "Every output that the manifest asks for was run and judged.",
    )


def _outputs(number: int) -> str:
    return f"{number} output{'' if number == 1 else 's'}"


def _targets(known: Sources, found: Judged, parts: Sequence[str]) -> Iterator[TargetVerdict]:
    """Yield the graphs' verdicts, then each target's; one that is never run alone stands as its graphs do."""
    found = [(c, rows) for c, rows in found if c.kind != Kind.GAP]
    own = {c.target for c, _ in found}
    for target in (None, *known.manifest.targets):
        stands_as = target if target in own else None
        precisions = dict.fromkeys(c.precision for c, _ in found if c.target == stands_as)
        standings = tuple(
            _standing(
                precision, [(c, rows) for c, rows in found if (c.target, c.precision) == (stands_as, precision)], parts
            )
            for precision in precisions
            if target is None or precision in known.manifest.targets[target].precisions
        )
        if standings:
            note = "" if target in own else "runs the graph"
            yield TargetVerdict(target or GRAPH, note, worst(s.verdict for s in standings), standings)


def _standing(precision: str, found: Judged, parts: Sequence[str]) -> Standing:
    by_part = {part: [row for c, rows in found if c.component == part for row in rows] for part in parts}
    cells = [(outcome(rows), count(rows)) if rows else None for rows in by_part.values()]
    return Standing(precision, worst(cell[0] for cell in cells if cell), tuple(cells))


def _groups(known: Sources, found: Judged, verdict: str) -> Iterator[Group]:
    """Yield what has this verdict by its reason. Each judged reason is cut before what the row says of its own gate."""
    reasons: dict[str, list[tuple[Comparison, Row]]] = {}
    for c, rows in found:
        for row in rows:
            if row.verdict == verdict:
                reasons.setdefault((row.reason or "").partition(ALSO_FAILED)[0], []).append((c, row))
    for reason, members in reasons.items():
        sides: dict[str, dict[str, None]] = {}
        for c, _ in members:
            sides.setdefault(side(c), {})[c.component] = None
        alike: dict[str, list[str]] = {}
        for one, components in sides.items():
            alike.setdefault(", ".join(components), []).append(one)
        yield Group(
            reason,
            tuple((", ".join(some), components) for components, some in alike.items()),
            tuple(dict.fromkeys(command for c, _ in members if (command := known.command(c)))),
            len({c.name for c, _ in members}),
            len({(c.name, row.output) for c, row in members}),
        )


# ------------------------------------------------------------------ components


def _section(
    known: Sources,
    component: str,
    found: Judged,
    errors: dict[int, list[Error]],
    scale: Axis,
) -> Section:
    own = [(c, rows) for c, rows in found if c.component == component]
    rows = [row for _, judged in own for row in judged]
    outputs: dict[str, list[Error]] = {}
    for e in (e for c, _ in own for e in errors.get(id(c), ())):
        outputs.setdefault(e.output, []).append(e)
    return Section(
        component,
        outcome(rows),
        count(rows),
        tuple(_tables([(c, judged) for c, judged in own if _ran(judged)])),
        tuple((output, bars(some, scale)) for output, some in outputs.items()),
        tuple(side(c) for c, judged in own if not _ran(judged)),
    )


def _tables(found: Judged) -> Iterator[Table]:
    """Yield a table per set of metrics."""
    alike: dict[tuple[str, ...], list[tuple[Comparison, tuple[Row, ...]]]] = {}
    for c, rows in found:
        alike.setdefault(metrics(rows), []).append((c, rows))
    for some in alike.values():
        title = f"Values: {', '.join(dict.fromkeys(side(c) for c, _ in some))}"
        yield worst_first(table(title, some, why=_own_reason))


def _own_reason(row: Row) -> str:
    """Return why a row did not pass; of one that was not judged, what it would have failed for itself."""
    return (row.reason or "").partition(ALSO_FAILED)[2] if row.verdict == Verdict.NOT_JUDGED else row.reason or ""


def _ran(rows: Iterable[Row]) -> bool:
    return any(row.verdict != Verdict.NOT_RUN for row in rows)


def _errors(known: Sources, comparison: Comparison, rows: Sequence[Row]) -> list[Error]:
    outputs = known.read_json(comparison.action, "statistics.json").get("outputs")
    found = []
    for name, measured in outputs.items() if isinstance(outputs, dict) else ():
        own = [row for row in rows if row.output == name]
        if isinstance(measured, dict) and (e := error(name, side(comparison), measured, own)):
            found.append(e)
    return found


# ------------------------------------------------------------------ facts


def _facts(known: Sources) -> Iterator[tuple[str, str]]:
    manifest, source = known.manifest, known.manifest.checkpoint
    yield "model", f"{manifest.family}, layout {manifest.layout}, reference {manifest.reference}"
    weights = f"random, seed {source.seed}"
    if source.hub:
        weights = f"{source.hub.repo} at {source.hub.revision}"
    elif source.path:
        weights = source.path.name
    elif source.download:
        weights = source.download.url
    inventory = known.records.get("checkpoint")
    yield "weights", weights + (f" (inventory {inventory.object[:12]})" if inventory else "")
    yield "precisions", ", ".join(manifest.precisions)
    yield "samples", str(len(manifest.samples))
    began = [str(record.provenance.get("began", "")) for record in known.records.values()]
    if newest := max(began, default=""):
        yield "newest result", newest.replace("T", " ").replace("Z", " UTC")

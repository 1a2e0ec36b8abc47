"""Takes records, returns the files that were built, their sizes and times, and the chain of digests of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sam3_build.report.html.sources import GRAPH, Sources
from sam3_build.report.text import duration
from sam3_build.spec import Action
from sam3_build.store.objects import Record
from sam3_build.store.sizes import readable_size

SHORT = 12


@dataclass(frozen=True)
class File:
    """A file of the view: its size and how long its action took, or why it is not there."""

    path: str
    size: str
    seconds: str
    why: str


@dataclass(frozen=True)
class BuiltFiles:
    """The files of a component in a precision, by column; None where there is none."""

    component: str
    precision: str
    files: tuple[File | None, ...]


@dataclass(frozen=True)
class Link:
    """One step of a chain: its stage, the digest of what it wrote, and the action."""

    stage: str
    digest: str
    action: str


@dataclass(frozen=True)
class Branch:
    """What a precision wrote, and what each target built of it."""

    precision: Link
    built: tuple[Link, ...]


@dataclass(frozen=True)
class Lineage:
    """How a component came about: from its part of the weights to the graph, then by precision."""

    component: str
    trunk: tuple[Link, ...]
    branches: tuple[Branch, ...]


@dataclass(frozen=True)
class Artifacts:
    """Everything about files. columns: the graph, then the targets; stages: (stage, actions, seconds)."""

    columns: tuple[str, ...]
    rows: tuple[BuiltFiles, ...]
    missing: tuple[str, ...]
    total: str
    stages: tuple[tuple[str, int, str], ...]
    seconds: str
    lineages: tuple[Lineage, ...]
    tools: tuple[tuple[str, str], ...]


def artifacts(known: Sources) -> Artifacts:
    """Return what the plan's actions made, as far as it is there."""
    shown = [action for action in known.plan.actions if action.view and "component" in action.params]
    columns = (GRAPH, *known.manifest.targets)
    files: dict[tuple[str, str], dict[str, File]] = {}
    for action in shown:
        of = str(action.params["component"]), str(action.params["precision"])
        column = GRAPH if action.stage == "precision" else action.name.rpartition(".")[2]
        files.setdefault(of, {})[column] = _file(action, known.records.get(action.name))
    sizes = [_size(known.records[action.name], action) for action in shown if action.name in known.records]
    times: dict[str, list[float]] = {}
    for record in known.records.values():
        times.setdefault(str(record.document["stage"]), []).append(_seconds(record))
    return Artifacts(
        columns,
        tuple(BuiltFiles(*of, tuple(there.get(column) for column in columns)) for of, there in files.items()),
        tuple(dict.fromkeys(f.why for there in files.values() for f in there.values() if f.why)),
        readable_size(sum(sizes)),
        tuple((stage, len(took), duration(sum(took))) for stage, took in times.items()),
        duration(sum(sum(took) for took in times.values())),
        tuple(_lineages(known)),
        tuple(_tools(known)),
    )


# ------------------------------------------------------------------ files


def _file(action: Action, record: Record | None) -> File:
    path = next(iter(action.view.values()))
    if record is None:
        return File(path, "", "", action.blocked or "not built")
    return File(path, readable_size(_size(record, action)), duration(_seconds(record)), "")


def _size(record: Record, action: Action) -> int:
    """Return the bytes of what is shown of an action, weights beside an ONNX file too."""
    return sum(fact.size for name, fact in record.files.items() if name.removesuffix(".data") in action.view)


def _seconds(record: Record) -> float:
    seconds = record.provenance.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else 0.0


# ------------------------------------------------------------------ lineage


def _lineages(known: Sources) -> Iterator[Lineage]:
    for component in known.manifest.components:
        own = [a for a in known.plan.actions if a.stage == "precision" and a.params.get("component") == component]
        if not own:
            continue
        branches = []
        for action in own:
            built = [a for a in known.plan.actions if a.stage == "build" and _source(a) == action.name]
            links = tuple(_link(known, a, a.name.rpartition(".")[2]) for a in built)
            branches.append(Branch(_link(known, action, str(action.params["precision"])), links))
        yield Lineage(component, _trunk(known, own[0]), tuple(branches))


def _trunk(known: Sources, action: Action) -> tuple[Link, ...]:
    """Return the links from a component's tensors to the graph that precisions are written into."""
    links: list[Link] = []
    while source := _source(action):
        action = known.plan.action(source)
        links.append(_link(known, action, action.stage))
    record = known.records.get(action.name)
    inputs = record.document.get("inputs") if record else None
    tensors = inputs.get("tensors") if isinstance(inputs, dict) else None
    links.append(Link("weights", str(tensors)[:SHORT] if tensors else "", "checkpoint"))
    return tuple(reversed(links))


def _source(action: Action) -> str | None:
    found = action.inputs.get("onnx")
    return found.action if found else None


def _link(known: Sources, action: Action, title: str) -> Link:
    record = known.records.get(action.name)
    if record is None:
        return Link(title, "", action.name)
    shown = [fact.sha256 for name, fact in record.files.items() if name in action.view]
    return Link(title, (shown[0] if shown else record.object)[:SHORT], action.name)


def _tools(known: Sources) -> Iterator[tuple[str, str]]:
    found: dict[str, dict[str, None]] = {}
    for record in known.records.values():
        tools = record.document.get("tools")
        for name, version in tools.items() if isinstance(tools, dict) else ():
            found.setdefault(name.partition(":")[0], {})[str(version)] = None
    for name in sorted(found):
        yield name, ", ".join(found[name])

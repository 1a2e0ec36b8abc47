"""Takes one published file, its record and verdicts, returns its card: what to know before using it, as Markdown.

Says nothing that the records do not: the same records give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from sam3_build import registry
from sam3_build.compare.judge import ALWAYS, RANGE_PARITY, RANGE_PARITY_NOTE, Row, Verdict, asked
from sam3_build.graph.emulation import emulates
from sam3_build.manifest.types import Manifest
from sam3_build.publish import licence
from sam3_build.spec import Json
from sam3_build.store.objects import Record
from sam3_build.store.sizes import readable_size

UNVERIFIED = "UNVERIFIED"
# What is published for a target that runs ONNX files.
GRAPH = "ONNX graph"


@dataclass(frozen=True)
class Subject:
    """What a card describes.

    file, sha256, size: the published file; `kind` says what it is ("TensorRT-RTX engine", "ONNX graph")
    record:   of the action that made it; `tested` of what ran or opened it, by what was done
    weights:  the sha256 of its component's inventory of tensors; `commit` of the hub, where they come from there
    rows:     its own verdicts; `below` is what they depend on, each with its name and its verdict
    runs_on:  compute capability -> the GPU that ran it there, None where none did; empty when there is no choice
    unrun:    why it is UNVERIFIED, empty when it is not
    has_licence: whether the folder holds the weights' licence
    notes:    what is to say of the product that the layout is for, in lines
    call:     how doit is called for its manifest, `doit manifest=mine`
    """

    file: str
    sha256: str
    size: int
    kind: str
    component: str
    precision: str
    target: str
    record: Record
    tested: Mapping[str, Record]
    weights: str
    commit: str | None
    rows: tuple[Row, ...]
    below: tuple[tuple[str, str, Verdict], ...]
    runs_on: Mapping[str, str | None]
    unrun: tuple[str, ...]
    has_licence: bool
    notes: tuple[str, ...]
    call: str


def card(subject: Subject, manifest: Manifest) -> bytes:
    """Return the card's text."""
    return ("\n".join(_lines(subject, manifest)) + "\n").encode()


def _lines(s: Subject, manifest: Manifest) -> Iterator[str]:
    yield from (f"# {s.file}", "")
    if s.unrun:
        yield f"**{UNVERIFIED}: nobody has shown that this file computes what it should. Do not rely on it.**"
        yield from (f"* not run: {_plain(reason)}" for reason in s.unrun)
        yield ""
    if manifest.checkpoint.seed is not None:
        yield "**Random weights:** the verdicts below are about arithmetic; they prove nothing about pictures."
        yield ""
    yield f"{s.kind} of `{s.component}` ({manifest.family}, layout {manifest.layout}), precision `{s.precision}`."
    if s.kind == GRAPH and emulates(registry.precision(s.precision).onnx_type):
        yield "ONNX Runtime opened this very file and did not run it: the verdicts are those of an FP32 graph, made"
        yield "from it, that rounds what every node writes (range parity)."
    yield ""
    yield from _table(("what", "value"), _facts(s, manifest))
    yield from ("", "## Verdicts", "")
    yield from _verdicts(s.rows)
    if s.below:
        yield from ("", "These depend on:", "")
        rows = ((verdict.words, label, name) for label, name, verdict in s.below)
        yield from _table(("verdict", "compared", "what"), rows)
    if s.runs_on:
        yield from ("", "## GPUs", "")
        yield from _table(
            ("compute capability", "run there"),
            ((capability, where or f"{UNVERIFIED}: not run") for capability, where in s.runs_on.items()),
        )
    if s.notes:
        yield from ("", "## Where it runs", "", *s.notes)
    yield from ("", "## Build it again", "")
    yield from (f"    {s.call} {s.record.action}", f"    {s.call} verify", "")
    yield "with the tools above. An equal key means equal inputs, code and tools; a large engine's bytes may differ all"
    yield "the same, since TensorRT orders things by address. `sha256sum -c SHA256SUMS` checks this folder."
    family = registry.family(manifest.family)
    yield from ("", "## Licence", "", *licence.notes(family, manifest.checkpoint, s.has_licence))


def _facts(s: Subject, manifest: Manifest) -> Iterator[tuple[str, str]]:
    document, provenance = s.record.document, s.record.provenance
    yield "sha256", f"`{s.sha256}`"
    yield "size", f"{readable_size(s.size)} ({s.size} bytes)"
    yield "weights", _source(manifest, s.commit)
    yield f"tensors of `{s.component}`", f"sha256 of their inventory `{s.weights}`"
    yield "manifest and target", f"{manifest.path.name}, {s.target} ({manifest.targets[s.target].backend})"
    yield "options", _listed(manifest.targets[s.target].options) or "none"
    yield "key", f"`{s.record.key}`"
    yield (
        "made",
        f"{provenance.get('began')}, in {provenance.get('seconds')} s, by sam3_build {provenance['sam3_build']}",
    )
    yield "tools", _listed(document["tools"])
    if bound := _listed(document["device"]):
        yield "bound to", bound
    for what, record in s.tested.items():
        device = _listed(record.document["device"])
        yield what, "; ".join(filter(None, (_listed(record.document["tools"]), f"on {device}" if device else "")))


def _source(manifest: Manifest, commit: str | None) -> str:
    checkpoint = manifest.checkpoint
    if checkpoint.seed is not None:
        return f"random, seed {checkpoint.seed}"
    if checkpoint.hub:
        return f"{checkpoint.hub.repo} at the Hugging Face hub, commit {commit or checkpoint.hub.revision}"
    if checkpoint.download:
        return f"{checkpoint.download.url}, sha256 `{checkpoint.download.sha256}`"
    weights = checkpoint.files["weights"]
    beside = manifest.path.parent
    return f"the file {weights.relative_to(beside) if weights.is_relative_to(beside) else weights.name}"


def _verdicts(rows: Iterable[Row]) -> Iterator[str]:
    """Yield a table of what was judged. Gates that only say "no NaN, the right shape" stand there when they fail."""
    quiet = {gate.metric for gate in ALWAYS}
    shown = [row for row in rows if not (row.metric in quiet and row.verdict == Verdict.PASS)]
    yield from _table(
        ("verdict", "compared", "component", "output", "metric", "value", "gate"),
        (
            (
                row.verdict.words,
                row.comparison,
                row.component,
                row.output,
                row.metric,
                "" if row.value is None else f"{row.value:.6g}",
                asked(row),
            )
            for row in shown
        ),
    )
    if any(RANGE_PARITY in row.comparison and row.verdict != Verdict.NOT_RUN for row in shown):
        yield from ("", RANGE_PARITY_NOTE)


def _table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    for cells in (titles, ("---",) * len(titles), *rows):
        yield f"| {' | '.join(_plain(cell) for cell in cells)} |"


def _listed(values: Json) -> str:
    assert isinstance(values, Mapping)
    return ", ".join(f"{name} {_value(value)}" for name, value in values.items() if value is not None)


def _value(value: Json) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _plain(text: str) -> str:
    """Return text that neither ends a table's cell nor its row."""
    return text.replace("|", "\\|").replace("\n", " ")

"""Takes a session and its verdicts, writes verdicts.json: what the judge knows of each file, by its sha256."""

from __future__ import annotations

from collections.abc import Iterable

from sam3_build import registry
from sam3_build.compare.dependencies import Judged
from sam3_build.compare.judge import Row, Verdict, worst
from sam3_build.execution.session import Session
from sam3_build.folders import write_atomically
from sam3_build.graph.emulation import emulates
from sam3_build.model_format import (
    GRAPH,
    VERDICTS,
    FileVerdict,
    JudgedFile,
    ModelFile,
    Verdicts,
    made_by,
    verdicts_text,
)
from sam3_build.params import ModelParams
from sam3_build.plan.model import NAME
from sam3_build.spec import Kind
from sam3_build.store.writing import writing


def write_verdicts(session: Session, found: Judged) -> None:
    """Write verdicts.json beside model.json where that changes it; nothing for a model that nobody can run."""
    if verdicts := verdicts_of(session, found):
        path, data = session.view.root / VERDICTS, verdicts_text(verdicts)
        with writing(path):
            if not path.is_file() or path.read_bytes() != data:
                write_atomically(path, data)


def verdicts_of(session: Session, found: Judged) -> Verdicts:
    """Return what is known of each file that the plan's model.json lists and that is there."""
    action = next((action for action in session.plan.actions if action.name == NAME), None)
    if action is None:
        return {}
    assert isinstance(action.arguments, ModelParams)
    verdicts: dict[str, dict[str, JudgedFile]] = {}
    for file in action.arguments.files:
        role, start = made_by(file, action.inputs)
        record = session.resolver.resolve(action.inputs[role].action).record
        name = f"{file.component}.{file.precision}{file.path.removeprefix(start)}"
        if record and name in record.files:
            side = file.target if file.target and registry.backend(file.backend).runs(file.options) else None
            labels = [p.label for p in action.arguments.pipelines if file.component in p.components and p.result]
            verdicts.setdefault(record.files[name].sha256, {})[side or GRAPH] = _of_file(file, side, labels, found)
    return verdicts


def _of_file(file: ModelFile, side: str | None, labels: Iterable[str], found: Judged) -> JudgedFile:
    def verdict(name: str) -> str:
        return _worst(
            row
            for comparison, rows in found
            if (comparison.component, comparison.precision, comparison.target) == (name, file.precision, side)
            and comparison.kind in (Kind.PARITY, Kind.RESULT)
            for row in rows
        )

    return JudgedFile(
        verdict=verdict(file.component),
        pipelines={label: verdict(label) for label in labels},
        emulated=side is None and emulates(registry.precision(file.precision).onnx_type),
    )


def _worst(rows: Iterable[Row]) -> str:
    """Return several verdicts as one; what nothing judges was not run. Information takes nothing away."""
    verdicts = [row.verdict for row in rows]
    if not verdicts:
        return FileVerdict.NOT_RUN.value
    found = worst(verdicts)
    return (FileVerdict.PASS if found == Verdict.INFO else FileVerdict(found.words)).value

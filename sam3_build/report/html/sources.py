"""What the page is made from: a session's plan, its records and the files of their outputs. Reads only."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sam3_build.errors import BuildError
from sam3_build.execution.session import Session
from sam3_build.manifest.paths import doit_call
from sam3_build.manifest.types import Manifest
from sam3_build.spec import Comparison, Json, Kind, Plan
from sam3_build.store.objects import Record

# What a comparison without a target runs: the ONNX file, on ONNX Runtime's CPU.
GRAPH = "graph"


@dataclass(frozen=True)
class Sources:
    """A plan and what is known of its actions. `records` holds those that are fresh; `folder` is where one's files lie.

    call: how doit is called for this manifest, `doit manifest=mine`
    """

    manifest: Manifest
    plan: Plan
    records: Mapping[str, Record]
    folder: Callable[[Record], Path]
    call: str

    def read_json(self, action: str | None, file: str) -> Mapping[str, Json]:
        """Return a JSON file that an action wrote; an empty one where there is none."""
        record = self.records.get(action or "")
        if record is None or file not in record.files:
            return {}
        found = json.loads((self.folder(record) / file).read_bytes())
        return found if isinstance(found, dict) else {}

    def command(self, comparison: Comparison) -> str:
        """Return what somebody types to measure a comparison, here or on a machine that can; empty if nothing does."""
        if comparison.kind == Kind.FILE:
            return ""
        stage, name = "verify", comparison.name
        if comparison.kind == Kind.RESULT:
            stage, name = "compare", name.removeprefix(f"{comparison.component}.")
        return f"{self.call} {comparison.action or f'{stage}:{name}'}"


def sources(session: Session) -> Sources:
    """Return what a session knows. What is stale, blocked or cannot be resolved has no record."""
    records: dict[str, Record] = {}
    for action in session.plan.actions:
        with suppress(BuildError):
            if record := session.resolver.known(action.name).record:
                records[action.name] = record
    call = doit_call(session.ownership.manifest)
    return Sources(session.manifest, session.plan, records, session.resolver.folder, call)


def side(comparison: Comparison) -> str:
    """Return what is compared in the fewest words: `fp16 onnxruntime`, `fp16 ada`, `reference gap hf`."""
    if comparison.kind == Kind.GAP:
        return f"reference gap {comparison.suffix.removeprefix('@')}"
    return f"{comparison.precision} {Kind.FILE if comparison.kind == Kind.FILE else comparison.target or GRAPH}"

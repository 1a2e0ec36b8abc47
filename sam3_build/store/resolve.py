"""Takes a plan's actions and the store, returns the state of each: fresh, stale, pending or blocked, with its key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sam3_build.digest import KEY_VERSION, digest
from sam3_build.errors import BuildError
from sam3_build.spec import Action, Input, Json, Plan
from sam3_build.store.objects import Record, Store


class State(StrEnum):
    """What the store says of an action, as `sam3-build plan --json` has it."""

    FRESH = "fresh"  # its record exists, and every file of its object has its digest
    STALE = "stale"  # no such record, or a damaged object
    PENDING = "pending"  # an input is not fresh, so that its key is not known yet
    BLOCKED = "blocked"  # this machine cannot run it


@dataclass(frozen=True)
class Answer:
    """What the store says of one action. `key` and `document` are None while an input is not fresh (*pending*)."""

    state: State
    key: str | None = None
    document: Mapping[str, Json] | None = None
    record: Record | None = None
    waits_for: tuple[str, ...] = ()


class Resolver:
    """Answers from disk each time it is asked; remembers only what was found fresh or built in this run."""

    def __init__(self, plan: Plan, store: Store, version: Callable[[str], str]) -> None:
        """Resolve the actions of `plan` against `store`; `version` gives a distribution's installed version."""
        self._actions = {action.name: action for action in plan.actions}
        self._store = store
        self._version = version
        self._recipes: dict[tuple[str, ...], dict[str, str]] = {}
        self._fresh: dict[str, Answer] = {}

    def resolve(self, name: str) -> Answer:
        """Return the answer for `name`, asking the store for it and for every input that is not yet known fresh."""
        action = self._actions[name]
        if action.blocked:
            return Answer(State.BLOCKED)
        upstream = {role: self.known(source.action) for role, source in action.inputs.items()}
        waits_for = tuple(dict.fromkeys(action.inputs[r].action for r, a in upstream.items() if a.record is None))
        if waits_for:
            return Answer(State.PENDING, waits_for=waits_for)
        records = {role: answer.record for role, answer in upstream.items() if answer.record}
        document = self._document(action, records)
        key = digest(document)
        record = self._store.record(key)
        if record is None or not self._store.intact(record):
            return Answer(State.STALE, key, document)
        return self.settle(name, Answer(State.FRESH, key, document, record))

    def reconsider(self, name: str) -> Answer:
        """Return the answer for `name` with its code read anew: an edit made while it ran must not go unnoticed."""
        self._recipes.clear()
        return self.resolve(name)

    def settle(self, name: str, answer: Answer) -> Answer:
        """Remember for this run that `name` is fresh: just verified on disk, or just built."""
        self._fresh[name] = answer
        return answer

    def known(self, name: str) -> Answer:
        """Return the answer for `name` that this run already has, or ask."""
        return self._fresh.get(name) or self.resolve(name)

    def input_paths(self, action: Action) -> dict[str, Path]:
        """Return role -> path for a pending-free action: object folders, single files of them, and source files."""
        located = {role: read for role, read in action.reads.items() if isinstance(read, Path)}
        paths = {**located, **action.files}
        unkeyed = {role: read for role, read in action.reads.items() if isinstance(read, Input)}
        for role, source in {**unkeyed, **action.inputs}.items():
            record = self.known(source.action).record
            if record is None:
                raise BuildError(f"{action.name}: its input {source.action} is not built")
            folder = self.folder(record)
            paths[role] = folder / (source.file or source.folder or "")
        return paths

    def of_stage(self, stage: str) -> tuple[str, ...]:
        """Return the names of the plan's actions of a stage."""
        return tuple(name for name, action in self._actions.items() if action.stage == stage)

    def folder(self, record: Record) -> Path:
        """Return the folder of what an action wrote."""
        return self._store.object_path(record.object)

    def _document(self, action: Action, records: Mapping[str, Record]) -> dict[str, Json]:
        inputs: dict[str, Json] = {}
        for role, record in records.items():
            source = action.inputs[role]
            inputs[role] = found = record.content(source)
            if found is None:
                have = ", ".join(record.files)
                raise BuildError(f"{action.name}: {record.action} has no {source.file or source.folder!r}, only {have}")
        return {
            "version": KEY_VERSION,
            "stage": action.stage,
            "params": action.params,
            "recipe": self._recipe(action.recipe),
            "inputs": inputs,
            "files": {role: self._file(action, path) for role, path in action.files.items()},
            "tools": {tool: self._version(tool) for tool in action.tools},
            "device": action.device,
        }

    def _recipe(self, names: tuple[str, ...]) -> dict[str, str]:
        found = self._recipes.get(names)
        if found is None:
            try:
                found = self._recipes[names] = self._store.digests.recipe(names)
            except OSError as error:
                raise BuildError(f"cannot read {error.filename}: {error.strerror}") from error
        return found

    def _file(self, action: Action, path: Path) -> str:
        try:
            return self._store.digests.source(path)
        except OSError as error:
            raise BuildError(f"{action.name}: cannot read {path}: {error.strerror}") from error

"""The executor: runs one stale action in a worker, commits its output to the store and shows it in the view.

Under the action's lock it asks the store once more (another run may have built it meanwhile), starts a worker, and
commits what the worker wrote. Whatever happens to this process, the worker dies with it and the lock outlives both.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import cast

from sam3_build import registry
from sam3_build.errors import ActionError, Keys
from sam3_build.execution.launch import Ended, Job
from sam3_build.execution.memory import Running, expected_peak
from sam3_build.execution.refused import problems, refuse_unusable
from sam3_build.execution.sample_problems import located
from sam3_build.execution.session import Session, device_file, processors_file
from sam3_build.folders import make_folder, share
from sam3_build.machine import gpu_lock
from sam3_build.machine.toolchain import version
from sam3_build.manifest.types import Manifest
from sam3_build.spec import Action, Json
from sam3_build.store.objects import Record
from sam3_build.store.resolve import Answer, State
from sam3_build.store.view import View
from sam3_build.store.writing import writing

_TAIL_LINES = 12
_LITTLE_SPACE = 1 << 20


class How(StrEnum):
    """How an action ended, as a night's file has it."""

    BUILT = "built"
    RESTORED = "restored"  # the store had it, and the view lacked it
    FRESH = "fresh"
    FAILED = "failed"
    SKIPPED = "skipped"  # what it needs failed or is blocked
    BLOCKED = "blocked"


@dataclass(frozen=True)
class Outcome:
    """What became of an action. why: its error, what blocks it, or the failed or blocked action that it needs."""

    how: How
    seconds: float = 0.0
    why: str = ""


def log_path(view: View, action: Action) -> Path:
    """Return the log file of an action: `artifacts/<manifest>/logs/<action>.log`."""
    return view.root / "logs" / f"{action.name.replace(':', '.')}.log"


def is_fresh(action: Action, session: Session) -> bool:
    """Tell whether the store has what `action` makes now, fit for use, and the view shows it.

    BuildError when nothing can tell.
    """
    record = session.resolver.resolve(action.name).record
    return record is not None and not problems(action, record) and session.view.intact(action, record)


def execute(action: Action, session: Session) -> Outcome:
    """Make `action` fresh and shown. ActionError when its stage fails, or wrote what the plan cannot use.

    StoreError when it cannot be written.
    ManifestError when another manifest has made the view its own.
    """
    started = time.monotonic()
    session.ownership.claim()
    resolver, store, view, manifest = session.resolver, session.store, session.view, session.plan.manifest
    answer = resolver.resolve(action.name)
    if answer.state == State.BLOCKED:
        raise ActionError(f"{action.name} is blocked: {action.blocked}")
    if answer.key is None:
        raise ActionError(f"{action.name}: its inputs are not built: {', '.join(answer.waits_for)}")
    how = How.RESTORED
    with store.using():
        key = answer.key
        if answer.record is None:
            with store.lock(key, lambda: _say_waiting(action)) as lock:
                answer = resolver.resolve(action.name)
                if answer.key != key:
                    raise ActionError(f"{action.name}: an input changed while it waited for another run; run it again")
                if answer.record is None:
                    with _gpu(action) as held:
                        record = _build(action, answer, session, (lock, *held))
                    how = How.BUILT
                    answer = resolver.settle(action.name, replace(answer, state=State.FRESH, record=record))
        assert answer.record
        refuse_unusable(action, answer.record)
        view.publish(action, answer.record)
        store.remember(manifest, action.name, key)
        for source in action.inputs.values():
            # What another manifest built is fresh here without ever running: history has to hear of it too.
            if known := resolver.resolve(source.action).key:
                store.remember(manifest, source.action, known)
    return Outcome(how, time.monotonic() - started)


@contextmanager
def _gpu(action: Action) -> Iterator[tuple[int, ...]]:
    """Hold the lock of the GPU that the action works on, if it does; yield its descriptor for the worker to inherit."""
    if action.gpu is None:
        yield ()
        return
    with gpu_lock.lock(action.gpu, lambda: _say_waiting(action, "another run is using its GPU")) as descriptor:
        yield (descriptor,)


def _build(action: Action, answer: Answer, session: Session, locks: tuple[int, ...]) -> Record:
    assert answer.key and answer.document
    resolver, store, log = session.resolver, session.store, log_path(session.view, action)
    expected = expected_peak(action, session.manifest.family, resolver)
    work = store.workdir(answer.key)
    try:
        out = work / "out"
        with writing(out):
            make_folder(out, store.root)
        with session.admission.admit(expected, lambda free: _say_too_large(action, expected, free)) as entry:
            began = time.time()
            result = _work(action, session, out, log, locks, entry)
        provenance: dict[str, Json] = {
            "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
            "seconds": round(time.time() - began, 3),
            "peak_bytes": result["peak_bytes"],
            "expected_peak_bytes": expected,
            "python": sys.version.split()[0],
            "sam3_build": version("sam3-build"),
        }
        facts = result["facts"]
        assert isinstance(facts, dict)
        if missing := [name for name in action.view if not (out / name).is_file()]:
            wrote = ", ".join(sorted(path.name for path in out.iterdir())) or "nothing"
            raise ActionError(f"{action.name}: its stage had to write {', '.join(missing)} and wrote {wrote}")
        if resolver.reconsider(action.name).key != answer.key:
            raise ActionError(f"{action.name}: an input changed while it was running; nothing was kept, run it again")
        return store.commit(
            key=answer.key, action=action.name, document=answer.document, out=out, facts=facts, provenance=provenance
        )
    finally:
        store.discard(work)


def _work(
    action: Action, session: Session, out: Path, log: Path, locks: tuple[int, ...], entry: Running
) -> dict[str, Json]:
    """Run the stage in a worker and return its result; the worker's output goes to the log."""
    inputs, artifacts = session.resolver.input_paths(action), session.view.root.parent
    device: dict[str, Json] | None = None
    if action.gpu:
        device = {"uuid": action.gpu, "fields": action.device, "file": str(device_file(artifacts).absolute())}
        inputs = inputs | {"scratch": artifacts / ".timing"}
        with suppress(OSError):  # where it cannot be made, only time is lost
            make_folder(artifacts / ".timing", artifacts)
    processor: dict[str, Json] | None = None
    if action.processor:
        file = processors_file(artifacts, action.processor).absolute()
        processor = {"backend": action.processor, "fields": action.device, "file": str(file)}
    request = {
        "gpu": device,
        "processor": processor,
        "stage": action.stage,
        "params": action.params,
        "inputs": {role: str(path.absolute()) for role, path in inputs.items()},
        "out": str(out.absolute()),
    }
    with writing(log):
        make_folder(log.parent, artifacts)
        log_file = log.open("wb")
        share(log, log.parent)
    with log_file:
        imports = registry.stage(action.stage).imports
        job = Job(json.dumps(request).encode(), log_file, action.env, locks, imports)
        ended = session.launch(job, entry.start)
    return _judge_exit(action, ended, log, out, session.manifest)


def _say_waiting(action: Action, why: str = "another run is building it") -> None:
    sys.stderr.write(f"  wait  {action.name}: {why}\n")


def _say_too_large(action: Action, need: int, free: int) -> None:
    left = f"{free / 1e9:.1f} GB are left beside what runs"
    sys.stderr.write(f"  wait  {action.name}: needs about {need / 1e9:.1f} GB of memory, {left}\n")


def _judge_exit(action: Action, ended: Ended, log: Path, out: Path, manifest: Manifest) -> dict[str, Json]:
    code = ended.code
    result: dict[str, Json] = json.loads(ended.said) if ended.said and code >= 0 else {}
    if code == 0 and "facts" in result:
        return result
    if code < 0:
        why = f"its worker was killed by {signal.Signals(-code).name}"
        why += " (out of memory?)" if code == -signal.SIGKILL else ""
    else:
        why = str(result.get("error", f"its worker exited with {code} and gave no result"))
        if problems := _problems(result):
            count = f"{len(problems)} mistake{'s' if len(problems) > 1 else ''} in the manifest"
            why = "\n".join([f"{count}:", *located(manifest.path, problems)])
    if shutil.disk_usage(log.parent).free < _LITTLE_SPACE or shutil.disk_usage(out).free < _LITTLE_SPACE:
        why += f"; the disk of {readable(out)} is full: free some space or set SAM3_STORE to another disk"
    message = f"{action.name}: {why}\n  log: {readable(log)}"
    message += "".join(f"\n  | {line}" for line in _tail(log))
    raise ActionError(message)


def _problems(result: Mapping[str, Json]) -> list[tuple[Keys, str]]:
    """Return what the worker says of an InputError: JSON has no tuples."""
    problems = cast("Sequence[tuple[Sequence[str | int], str]]", result.get("problems", ()))
    return [(tuple(keys), text) for keys, text in problems]


def readable(path: Path) -> str:
    """Return `path` relative to the current directory where it lies below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _tail(log: Path) -> list[str]:
    try:
        return log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
    except OSError:
        return []

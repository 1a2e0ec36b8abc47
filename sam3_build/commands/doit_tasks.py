"""The doit front end: takes a session, returns doit tasks, groups and the configuration. doit orders and runs them."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TextIO

from doit import doit_cmd, get_var
from doit.exceptions import InvalidDodoFile, TaskError, TaskFailed
from doit.task import Task

from sam3_build import registry
from sam3_build.commands.doit_command import NOTHING, Typed, refuse_unknown
from sam3_build.commands.doit_reporter import reporter
from sam3_build.commands.output import fail_at_exit, outlive_readers
from sam3_build.errors import BuildError, did_you_mean
from sam3_build.execution.local import Outcome, execute, is_fresh, log_path, readable
from sam3_build.execution.session import Session, open_session
from sam3_build.plan.model import NAME as MODEL_ACTION
from sam3_build.report.verdicts import forget, judge, report_path, reports, tell, verdicts_path
from sam3_build.spec import Action
from sam3_build.store.ownership import release

CONFIG = {
    "backend": "sqlite3",
    "dep_file": ":memory:",
    "par_type": "thread",
    "verbosity": 2,
}
# doit captures by swapping sys.stdout for the whole process, which two threads leave swapped.
IO = {"capture": False}


def open_for_doit(root: Path) -> Session:
    """Open the manifest that `doit manifest=...` or SAM3_MANIFEST names. InvalidDodoFile when it cannot be used."""
    fail_at_exit(outlive_readers())
    sys.excepthook = _interrupted
    _hear_signals_while_waiting()
    gc.disable()  # a plan of 1000 actions is no garbage; looking through it again and again is a tenth of a no-op
    for name in set(doit_cmd._CMDLINE_VARS or ()) - {"manifest"}:
        raise InvalidDodoFile(f"doit {name}=...: there is no such variable{did_you_mean(name, ['manifest'])}")
    try:
        return open_session(root, get_var("manifest"), os.environ)
    except BuildError as error:
        raise InvalidDodoFile(str(error)) from None


def _interrupted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say that somebody pressed Ctrl-C, without a traceback; anything else is shown as ever."""
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("interrupted: what was finished is kept\n")
    else:
        sys.__excepthook__(kind, error, trace)


def _hear_signals_while_waiting() -> None:
    """Wake the main thread after each signal: one that arrives just before it waits for a worker would go unheard.

    Python only notes a signal, and looks at the note between two instructions or when a wait is interrupted. With
    `doit -n`, Ctrl-C in between would otherwise do nothing until the next worker ends.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGUSR1, lambda number, frame: None)
    main = threading.get_ident()

    def wake() -> None:
        while number := os.read(reader, 1):
            if number[0] != signal.SIGUSR1:
                time.sleep(0.1)
                signal.pthread_kill(main, signal.SIGUSR1)

    threading.Thread(target=wake, daemon=True).start()


def configure(session: Session, outcomes: dict[str, Outcome]) -> dict[str, object]:
    """Return the DOIT_CONFIG of a session: its reporter tells what became of each action."""
    described = [action.name for action in session.plan.actions if action.name == MODEL_ACTION]
    return {**CONFIG, "default_tasks": ["build", *described, "verify"], "reporter": reporter(session, outcomes)}


def tasks(session: Session, outcomes: dict[str, Outcome], typed: Typed = NOTHING) -> list[Task]:
    """Return a task per action, a group per stage and component, the judge behind `verify`, and what publishes.

    InvalidCommand when a name that was typed is none of theirs.
    """
    made = [_leaf(session, action, outcomes) for action in sorted(session.plan.actions, key=lambda a: bool(a.blocked))]
    made += [*_groups(session), _judge(session), *_publishers(session), _nightly(session, outcomes)]
    refuse_unknown(typed, {task.name for task in made})
    return made


class ViewTask(Task):  # type: ignore[misc]  # doit ships no types
    """A doit task whose `clean` takes what its actions show out of the view, and says each file."""

    shown: Callable[[], tuple[Path, ...]] = tuple

    def clean(self, outstream: TextIO, dryrun: bool) -> None:
        """Remove the files that are there, and folders that this leaves empty; only name them when `dryrun`."""
        for path in self.shown():
            if path.is_file():
                outstream.write(f"  {'would remove' if dryrun else 'removed'}  {readable(path)}\n")
                if not dryrun:
                    _remove(path)


def _remove(path: Path) -> None:
    try:
        path.unlink()
        for folder in (path.parent, path.parent.parent):
            if not any(folder.iterdir()):
                folder.rmdir()
            else:
                release(folder)
    except OSError as error:
        sys.stderr.write(f"cannot remove {readable(path)}: {error.strerror}\n")


def _shown(session: Session, actions: list[Action]) -> Callable[[], tuple[Path, ...]]:
    return lambda: tuple(p for a in actions for p in (*session.view.paths(a), log_path(session.view, a)))


# ------------------------------------------------------------------ leaves


def _leaf(session: Session, action: Action, outcomes: dict[str, Outcome]) -> Task:
    stage, _, rest = action.name.partition(":")
    summary = f"{registry.stage(action.stage).summary}"
    if action.blocked:
        return Task(
            action.name, [_refuse([action])], doc=f"{summary} (blocked: {action.blocked})", subtask_of=stage, io=IO
        )
    task = ViewTask(
        action.name,
        [_run(session, action, outcomes)],
        # What it waits for stands first: doit begins with it.
        task_dep=list(dict.fromkeys((*action.after, *(source.action for source in action.inputs.values())))),
        uptodate=[_freshness(session, action)],
        doc=summary,
        subtask_of=stage if rest else None,
        io=IO,
    )
    task.shown = _shown(session, [action])
    return task


def _freshness(session: Session, action: Action) -> Callable[[], bool]:
    def answer() -> bool:
        try:
            return is_fresh(action, session)
        except (BuildError, OSError):
            return False  # doit prints a traceback for what is raised here; the action itself will say what is wrong

    return answer


def _run(session: Session, action: Action, outcomes: dict[str, Outcome]) -> Callable[[], TaskFailed | None]:
    def run() -> TaskFailed | None:
        try:
            outcomes[action.name] = execute(action, session)
        except BuildError as error:
            forget(session)
            return TaskFailed(str(error))
        return None

    return run


def _refuse(actions: list[Action]) -> Callable[[], TaskFailed]:
    return lambda: TaskFailed("\n".join(f"{action.name} is blocked: {action.blocked}" for action in actions))


# ------------------------------------------------------------------ groups


def _groups(session: Session) -> Iterator[Task]:
    """Yield `build`, `build:decoder` and `build:decoder.fp16`, and so for every stage; `verify` itself is the judge.

    What is an action already makes no group: `verify:decoder.fp16` is ONNX Runtime's, beside `verify:decoder.fp16.ada`.
    """
    leaves = {action.name for action in session.plan.actions}
    members: dict[str, list[Action]] = {}
    for action in session.plan.actions:
        stage, _, rest = action.name.partition(":")
        parts = rest.split(".")
        prefixes = [".".join(parts[:n]) for n in range(1, len(parts))]
        for group in [stage, *(f"{stage}:{p}" for p in prefixes)] if rest else []:
            members.setdefault(group, []).append(action)
    for group, actions in members.items():
        if group != "verify" and group not in leaves:
            stage, _, rest = group.partition(":")
            ready = [a.name for a in actions if not a.blocked]
            summary = registry.stage(stage).summary
            doc = summary if not rest else f"{summary}: all of {rest}"
            refuse = [_refuse(actions)] if rest and not ready else None
            parent = stage if rest else None
            waits = ready if rest else [*_longest_first(session, ready), *ready]
            task = ViewTask(group, refuse, task_dep=waits, has_subtask=True, subtask_of=parent, doc=doc, io=IO)
            task.shown = _shown(session, actions)
            yield task


def _longest_first(session: Session, names: list[str]) -> list[str]:
    """Return what `names` need, that first which the most steps wait for, one after another.

    doit begins in this order. Left alone it looks at what is needed last, so that the longest chain begins last.
    """
    steps: dict[str, int] = {}
    needed = set(names)
    for action in reversed(session.plan.actions):  # whatever needs an action comes after it
        if action.name in needed:
            after = steps.setdefault(action.name, 0) + 1
            for name in (*action.after, *(source.action for source in action.inputs.values())):
                needed.add(name)
                steps[name] = max(steps.get(name, 0), after)
    before = [a.name for a in session.plan.actions if a.name in needed and a.name not in names and not a.blocked]
    return sorted(before, key=lambda name: -steps[name])


def _judge(session: Session) -> Task:
    """Return the task behind `doit verify`: it always runs, reads records only, and fails as long as a gate fails."""

    def run() -> TaskFailed | None:
        try:
            _, counts = tell(session, sys.stdout)
        except BuildError as error:
            return TaskFailed(str(error))
        where = readable(report_path(session))
        return TaskFailed(f"{counts.failed} outputs fail their gates: see {where}") if counts.failed else None

    leaves = [c.action for c in session.plan.comparisons if c.action]
    doc = "Judge every comparison by its gates and print the table"
    task = ViewTask("verify", [run], task_dep=leaves, has_subtask=True, doc=doc, io=IO)
    task.shown = lambda: (*reports(session), verdicts_path(session))
    return task


def _publishers(session: Session) -> Iterator[Task]:
    """Yield `publish` and `publish:<target>`. They wait for nothing: a gate that fails must stop its target alone.

    So they build and run nothing either; what is missing is refused with the command that makes it.
    """
    targets = list(session.manifest.targets)
    doc = "Publish what passed its gates, with cards and SHA256SUMS; refuse the rest"
    yield Task("publish", [_publish(session, targets)], has_subtask=True, doc=doc, io=IO)
    for target in targets:
        doc = f"Publish for {target} alone"
        yield Task(f"publish:{target}", [_publish(session, [target])], subtask_of="publish", doc=doc, io=IO)


def _publish(session: Session, targets: list[str]) -> Callable[[], TaskFailed | None]:
    def run() -> TaskFailed | None:
        from sam3_build.publish.outcome import refusal, render
        from sam3_build.publish.targets import publish

        try:
            done = publish(session, judge(session), targets)
        except BuildError as error:
            return TaskFailed(str(error))
        sys.stdout.write(render(done))
        refused = refusal(done)
        return TaskFailed(refused) if refused else None

    return run


def _nightly(session: Session, outcomes: dict[str, Outcome]) -> Task:
    """Return the task behind `doit nightly`, which builds alone. doit exits with 1 or 2 as the night did."""

    def run() -> TaskFailed | TaskError | None:
        from sam3_build.publish import nightly

        try:
            code = nightly.night(session, lambda: datetime.now().astimezone(), outcomes, sys.stdout)
        except BuildError as error:
            return TaskError(str(error))
        if code == nightly.GOOD:
            return None
        return (TaskFailed if code == nightly.BAD_GATE else TaskError)(nightly.MEANING[code])

    doc = "Build, verify and publish, past failures; tell what changed since the night before"
    return Task("nightly", [run], doc=doc, io=IO)

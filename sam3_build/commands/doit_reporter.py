"""Takes what doit reports; prints what runs, for how long and its log file, on a terminal and in plain logs."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from doit.exceptions import UnmetDependency
from doit.reporter import ConsoleReporter

from sam3_build.execution.local import How, Outcome, log_path, readable
from sam3_build.report.text import wrapped

# Of a log, so much is read for the last word on how far its action is.
_TAIL_BYTES = 4096

if TYPE_CHECKING:
    from doit.exceptions import BaseFail
    from doit.task import Task
    from rich.progress import Progress, TaskID

    from sam3_build.execution.session import Session


class Reporter(ConsoleReporter):  # type: ignore[misc]  # doit ships no types
    """One line per action that did something, live rows for those that run, one summary line at the end."""

    session: Session
    outcomes: dict[str, Outcome]

    def __init__(self, outstream: TextIO, options: dict[str, object]) -> None:
        """Report to `outstream`; live rows only where it is a terminal."""
        super().__init__(outstream, options)
        self._lock = threading.RLock()  # doit calls from as many threads as it runs actions in
        self._live: Progress | None = None
        self._rows: dict[str, TaskID] = {}
        self._fresh = self._failed = 0
        self._builds = True
        self._notes = list(self.session.manifest.notes)
        self._skipped: list[str] = []
        self._actions = frozenset(action.name for action in self.session.plan.actions)

    def initialize(self, tasks: object, selected_tasks: list[str]) -> None:
        """Note whether anything is to be built."""
        self._builds = any(name.partition(":")[0] not in ("publish", "nightly") for name in selected_tasks)

    def _log(self, name: str) -> str:
        return readable(log_path(self.session.view, self.session.plan.action(name)))

    def execute_task(self, task: Task) -> None:
        """Show that an action began."""
        if task.name not in self._actions:
            return
        with self._lock:
            while self._notes:  # before the first action, and never in a run that has nothing to do
                self.write(f"note: {self._notes.pop(0)}\n")
            if self.outstream.isatty():
                self._live = self._live or self._start()
                self._rows[task.name] = self._live.add_task(task.name, log=self._log(task.name))
            else:
                self.write(f"  run       {task.name:<40} {self._log(task.name)}\n")

    def _start(self) -> Progress:
        from rich.console import Console
        from rich.progress import Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.text import Text

        class SaidColumn(ProgressColumn):
            max_refresh = 0.5

            def render(self, task: Task) -> Text:
                return Text(last_said(Path(task.fields["log"])))

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            SaidColumn(),
            TextColumn("[dim]{task.fields[log]}"),
        )
        live = Progress(*columns, console=Console(file=self.outstream), transient=True)
        live.start()
        return live

    def _finish(self, name: str) -> None:
        with self._lock:
            if self._live and name in self._rows:
                self._live.remove_task(self._rows.pop(name))
                if not self._rows:
                    self._live.stop()
                    self._live = None

    def add_success(self, task: Task) -> None:
        """Say how an action ended and how long it took."""
        self._finish(task.name)
        outcome = self.outcomes.get(task.name)
        if outcome:
            self._say(f"  {outcome.how:<8}  {task.name:<40} {outcome.seconds:7.1f} s")

    def _say(self, line: str) -> None:
        with self._lock:
            if self._live:
                self._live.console.print(line, markup=False, highlight=False)
            else:
                self.write(f"{line}\n")

    def add_failure(self, task: Task, fail: BaseFail) -> None:
        """Print the error, once; what cannot run because of it is only counted."""
        self._finish(task.name)
        if isinstance(fail, UnmetDependency):
            self._skipped += [task.name] if task.name in self._actions else []
            return
        message = str(fail.message).rstrip()
        if fail.traceback and not message:
            message = "".join(fail.traceback)
        if fail.report:
            self._failed += 1
            self._say(
                f"  FAILED    {task.name}\n{message}" + "".join(["\n", *fail.traceback] if fail.traceback else [])
            )

    def skip_uptodate(self, task: Task) -> None:
        """Count what had nothing to do."""
        self._fresh += task.name in self._actions

    def complete_run(self) -> None:
        """Print the summary, and what is blocked: not where nothing was asked to be built."""
        if self._live:
            self._live.stop()
        if self._builds:
            self._summarise()
        for message in self.runtime_errors:
            self.write(f"{message}\n")
        self.session.store.digests.save()

    def _summarise(self) -> None:
        built = sum(o.how == How.BUILT for o in self.outcomes.values())
        restored = len(self.outcomes) - built
        counts = [f"{built} built", f"{restored} restored" if restored else "", f"{self._fresh} fresh"]
        counts += [f"{self._failed} FAILED" if self._failed else ""]
        counts += [f"{len(self._skipped)} not run because of that" if self._skipped else ""]
        self.write(f"{self.session.plan.manifest}: {', '.join(c for c in counts if c)}\n")
        blocked: dict[str, list[str]] = {}
        for action in self.session.plan.actions:
            if action.blocked:
                blocked.setdefault(action.blocked, []).append(action.name)
        for reason, names in blocked.items():
            self.write(f"blocked: {reason}\n")
            self.write("\n".join(wrapped(", ".join(names), "  ", "  ")) + "\n")


def last_said(log: Path) -> str:
    """Return what follows the last `progress: ` of a log (`35 % (phase)`), nothing when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            said = re.findall(r"progress: (\d+ % .*)", file.read().decode(errors="replace"))
    except OSError:
        return ""
    return str(said[-1]) if said else ""


def reporter(session: Session, outcomes: dict[str, Outcome]) -> type[Reporter]:
    """Return a reporter class for doit that knows the session and reads each action's outcome from `outcomes`."""
    return type("SessionReporter", (Reporter,), {"session": session, "outcomes": outcomes, "desc": Reporter.__doc__})

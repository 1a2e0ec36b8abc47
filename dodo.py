"""doit front end: run `doit list`, `doit build:decoder`, `doit verify`. All logic lives in `sam3_build`."""

import sys
from collections.abc import Iterator
from pathlib import Path

from doit.task import Task

from sam3_build.commands import doit_command

doit_command.require_build()  # which the modules below import
from sam3_build.commands import doit_tasks  # noqa: E402
from sam3_build.execution.local import Outcome  # noqa: E402

OUTCOMES: dict[str, Outcome] = {}
TYPED = doit_command.read(sys.argv[1:])
SESSION = doit_tasks.open_for_doit(Path(__file__).parent)
DOIT_CONFIG = doit_tasks.configure(SESSION, OUTCOMES)


def task_actions() -> Iterator[Task]:
    """Yield every task of the chosen manifest."""
    yield from doit_tasks.tasks(SESSION, OUTCOMES, TYPED)

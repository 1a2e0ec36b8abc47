"""doit front end: run `doit list`, `doit build:decoder`, `doit verify`. All logic lives in `sam3_build`."""

import sys
from collections.abc import Iterator
from pathlib import Path

from doit.task import Task

from sam3_build import doit_command, frontend
from sam3_build.executor import Outcome

OUTCOMES: dict[str, Outcome] = {}
TYPED = doit_command.read(sys.argv[1:])
SESSION = frontend.open_for_doit(Path(__file__).parent)
DOIT_CONFIG = frontend.configure(SESSION, OUTCOMES)


def task_actions() -> Iterator[Task]:
    """Yield every task of the chosen manifest."""
    yield from frontend.tasks(SESSION, OUTCOMES, TYPED)

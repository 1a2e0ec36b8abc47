"""The seam between the executor and what runs a stage: toy projects fork, and a test may ask for workers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from build_space import BuildSpace


@pytest.mark.parametrize("worker", [False, pytest.param(True, marks=pytest.mark.workers)])
def test_stages_of_a_toy_project_run_in_forks_of_doit_unless_the_test_asks_for_workers(
    fresh: BuildSpace, worker: bool
) -> None:
    stage = "sam3_build/stages/checkpoint.py"
    fresh.edit(stage, "import json\n", "import json\nimport os\nimport sys\n")
    fresh.edit(stage, "found = tensors", "print('runs in', os.getpid(), os.getsid(0), *sys.argv)\n    found = tensors")
    fresh.build("checkpoint")
    words = (fresh.view / "logs" / "checkpoint.log").read_text().split()
    assert words[2] == words[3], "a session of its own, which ends with it"
    assert words[4].endswith("/execution/worker.py" if worker else "/doit/__main__.py")


def test_a_stage_that_forks_leaves_nothing_to_the_next_one(space: BuildSpace) -> None:
    """Each has the environment and the temporary folder of a worker, whatever ran before it."""
    stage = "sam3_build/stages/simplify.py"
    space.edit(stage, '"""Toy: drop', 'import os\nimport tempfile\n\n"""Toy: drop')
    space.edit(
        stage, "component = ", "print(os.environ.pop('LEFT'), tempfile.gettempdir(), sep='\\n')\n    component = "
    )
    space.build("simplify:head", "simplify:encoder", LEFT="here")
    logs = [(space.view / "logs" / f"simplify.{c}.log").read_text().splitlines() for c in ("head", "encoder")]
    assert [log[0] for log in logs] == ["here", "here"]
    assert logs[0][1] != logs[1][1]


@pytest.mark.parametrize(
    ("doit", "cli"),
    [
        (["build"], ["plan"]),
        pytest.param(["list"], ["plan", "--no-such-option"], marks=pytest.mark.ci),
        pytest.param(["build:nothing"], ["explain", "build:head.fp16.ada"], marks=pytest.mark.ci),
    ],
)
def test_a_command_in_a_fork_ends_and_says_what_it_does_in_a_process_of_its_own(
    space: BuildSpace, doit: list[str], cli: list[str]
) -> None:
    """Else every other test of a toy project would hold for forks alone."""
    real = replace(space, workers=True)
    assert space.doit(*doit) == real.doit(*doit)
    assert space.cli(*cli) == real.cli(*cli)

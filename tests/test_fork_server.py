"""Stages that name modules to import run in forks of one server, which has them; all else is as in a worker."""

from __future__ import annotations

import signal

import pytest
from build_space import BuildSpace, processes_in, wait_until

pytestmark = pytest.mark.workers

EXPORT = "sam3_build/stages/export.py"


def printed(space: BuildSpace, what: str, *options: str) -> list[list[str]]:
    """Export both components, of which each prints `what`; return the words that each printed."""
    space.edit(EXPORT, "import json\n", "import json\nimport os\nimport sys\nimport tempfile\nimport time\n")
    space.edit(EXPORT, "component = ", f"print({what})\n    component = ")
    space.build(*options, "export", LEFT="here")
    return [(space.view / "logs" / f"export.{c}.log").read_text().split() for c in ("encoder", "head")]


def test_both_run_in_forks_of_one_server_that_has_the_modules(fresh: BuildSpace) -> None:
    encoder, head = printed(fresh, "os.getpid(), os.getppid(), sys.argv[0], 'colorsys' in sys.modules")
    assert encoder[0] != head[0] and encoder[1] == head[1], "two processes of one parent"
    assert encoder[2].endswith("/execution/fork_server.py") and encoder[3] == head[3] == "True"
    assert wait_until(lambda: not processes_in(fresh.root), 2), "it ends with the run"


@pytest.mark.ci
def test_a_fork_leaves_nothing_to_the_next_one(fresh: BuildSpace) -> None:
    encoder, head = printed(fresh, "os.environ.pop('LEFT'), os.getsid(0) == os.getpid(), tempfile.gettempdir()")
    assert encoder[:2] == head[:2] == ["here", "True"]
    assert encoder[2] != head[2]


@pytest.mark.ci
def test_what_a_fork_holds_open_is_its_own(fresh: BuildSpace) -> None:
    """Sockets and logs of others would keep those waiting for it. Both run at once."""
    descriptors = "(f'/proc/self/fd/{n}' for n in os.listdir('/proc/self/fd'))"
    paths = f"*(os.readlink(d) for d in {descriptors} if os.path.islink(d))"
    encoder, head = printed(fresh, f"{paths}, time.sleep(0.5)", "-n", "2")
    for own, other in ((encoder, "head"), (head, "encoder")):
        assert not [path for path in own if "socket" in path or path.endswith(f"{other}.log")]


@pytest.mark.ci
def test_when_the_server_is_killed_the_fork_dies_and_the_next_one_gets_a_server(fresh: BuildSpace) -> None:
    fresh.edit(EXPORT, "import json\n", "import json\nimport os\nimport time\n")
    die = "os.kill(os.getppid(), 9)\n        time.sleep(60)"
    fresh.edit(EXPORT, "component = ", f"if params['component'] == 'encoder':\n        {die}\n    component = ")
    run = fresh.doit("--continue", "export")
    assert run.code != 0 and "export:encoder: its worker was killed by SIGKILL" in run.output
    assert "export:head" in run.built
    assert wait_until(lambda: not processes_in(fresh.root), 2)


@pytest.mark.ci
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_when_doit_ends_the_fork_and_what_it_started_end_too(fresh: BuildSpace, number: signal.Signals) -> None:
    fresh.edit(EXPORT, "import json\n", "import json\nimport subprocess\n")
    fresh.edit(EXPORT, "component = ", "subprocess.run(['sleep', '60'])\n    component = ")
    process = fresh.start("export:head")
    log = fresh.view / "logs" / "export.head.log"
    assert wait_until(lambda: len(processes_in(fresh.root)) == 4, 20), "doit, the server, the fork and what it started"
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode != 0
    assert wait_until(lambda: not processes_in(fresh.root), 2)
    assert log.read_text() == ""
    assert fresh.plan()["export:head"] == "stale"

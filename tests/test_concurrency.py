"""Several runs at once, and several workers in one run: each action is built once, and everybody gets the result."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
from build_space import ACTIONS, SHOWN, BuildSpace, Run, finish

pytestmark = [pytest.mark.workers, pytest.mark.ci]


def both(first: BuildSpace, second: BuildSpace, *args: str, **extra: str) -> tuple[Run, Run]:
    processes = [space.start(*args, **extra) for space in (first, second)]
    runs: dict[int, Run] = {}
    readers = [threading.Thread(target=lambda i=i: runs.update({i: finish(processes[i])})) for i in range(2)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert (runs[0].code, runs[1].code) == (0, 0), runs[0].output + runs[1].output
    return runs[0], runs[1]


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_two_runs_in_one_project_build_each_action_once(fresh: BuildSpace, built: BuildSpace, jobs: str) -> None:
    one, other = both(fresh, fresh, "-n", jobs)
    assert sorted(one.built_lines + other.built_lines) == sorted(ACTIONS), one.output + other.output
    assert fresh.shown() == built.shown()


def test_two_projects_on_one_store_build_each_action_once(fresh: BuildSpace, built: BuildSpace, tmp_path: Path) -> None:
    twin = fresh.clone(tmp_path / "twin")
    one, other = both(fresh, twin, SAM3_STORE=str(tmp_path / "store"))
    assert sorted(one.built_lines + other.built_lines) == sorted(ACTIONS), one.output + other.output
    assert one.built | one.restored >= SHOWN and other.built | other.restored >= SHOWN
    assert fresh.shown() == twin.shown() == built.shown()


def test_who_waits_for_another_run_says_so_and_takes_its_result(fresh: BuildSpace) -> None:
    fresh.build("precision:head.fp16")
    one, other = both(fresh, fresh, "build:head.fp16.ada", TOY_SLOW="1.5")
    assert [*one.built_lines, *other.built_lines] == ["build:head.fp16.ada"]
    assert (one.output + other.output).count("wait  build:head.fp16.ada: another run is building it") == 1
    assert one.restored | other.restored == {"build:head.fp16.ada"}


@pytest.mark.parametrize("jobs", [2, 4])
def test_workers_at_once_give_the_same_result_and_whole_lines(fresh: BuildSpace, built: BuildSpace, jobs: int) -> None:
    run = fresh.build("-n", str(jobs))
    assert sorted(run.built_lines) == sorted(ACTIONS)
    assert fresh.shown() == built.shown()
    progress = re.compile(r"  run       \S+ +artifacts/toy/logs/\S+\.log|  built     \S+ +\d+\.\d s")
    verdicts = ("not run", "run and passed")
    shown = [
        s for s in run.output.splitlines() if re.search(r"\b(run|built) ", s) and not any(v in s for v in verdicts)
    ]
    assert [line for line in shown if not progress.fullmatch(line)] == []
    assert len(shown) == 2 * len(ACTIONS)


def test_what_does_not_wait_for_each_other_runs_at_once(fresh: BuildSpace) -> None:
    fresh.build("precision:head.fp16")
    run = fresh.build("-n", "2", "build:head.fp16", TOY_SLOW="0.5")
    assert re.findall(r"^  (run|built) +build:", run.output, re.M) == ["run", "run", "built", "built"]


def test_collection_waits_for_a_build_and_takes_nothing_from_it(fresh: BuildSpace, built: BuildSpace) -> None:
    building = fresh.start(TOY_SLOW="0.1")
    while building.poll() is None:
        collected = fresh.cli("gc", "--keep", "0")
        assert collected.code == 0, collected.output
    run = finish(building)
    assert run.code == 0, run.output
    assert fresh.shown() == built.shown()
    assert fresh.build().built == set()

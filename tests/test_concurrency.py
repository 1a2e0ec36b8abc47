"""Several runs at once, and several workers in one run: each action is built once, and everybody gets the result."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
from build_space import ACTIONS, SHOWN, BuildSpace, Run, finish


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
    lines = [line for line in run.output.splitlines() if re.search(r"\b(run|built|restored) ", line) and ":" in line]
    progress = re.compile(r"  (run   \S+|built     \S+ +\d+\.\d s  artifacts/toy/logs/\S+\.log)")
    told = [line for line in lines if line.startswith(("  run", "  built"))]
    assert len(told) >= 2 * len(ACTIONS) - 4
    assert [line for line in told if not progress.fullmatch(line)] == []


def test_work_is_done_at_once(fresh: BuildSpace) -> None:
    """Eight builds of 0.4 s each that depend on nothing of each other take less than they would one by one."""
    fresh.build("precision")
    run = fresh.build("-n", "8", "build", TOY_SLOW="0.4")
    seconds = [float(s) for s in re.findall(r"^  built +build:\S+ +(\S+) s", run.output, re.M)]
    assert len(seconds) == 8 and min(seconds) >= 0.4
    order = re.findall(r"^  (run|built) +build:", run.output, re.M)
    assert order[:4] == ["run"] * 4


def test_collection_waits_for_a_build_and_takes_nothing_from_it(fresh: BuildSpace, built: BuildSpace) -> None:
    building = fresh.start(TOY_SLOW="0.2")
    while building.poll() is None:
        collected = fresh.cli("gc", "--keep", "0")
        assert collected.code == 0, collected.output
    run = finish(building)
    assert run.code == 0, run.output
    assert fresh.shown() == built.shown()
    assert fresh.build().built == set()

"""Kills at any moment, a full disk, a read-only disk: nothing half-written is accepted, finished work is kept."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from build_space import ACTIONS, SHOWN, BuildSpace, Run, finish, matching, processes_in, wait_until

pytestmark = [pytest.mark.workers, pytest.mark.ci]

# Loaded by every Python of a space that finds it: kills the process before it renames something to a path that
# matches CRASH_AT, at the time counted by CRASH_COUNT. Nothing of the project is replaced.
CRASH = """
import os, re, signal, sys
at, left = os.environ.get("CRASH_AT"), int(os.environ.get("CRASH_COUNT", "1"))
def watch(event, args):
    global left
    if event == "os.rename" and re.search(at, os.fsdecode(args[1])):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
if at:
    sys.addaudithook(watch)
"""


def assert_as_if_nothing_had_happened(space: BuildSpace, built: BuildSpace) -> None:
    """The view, the verdicts and, after collection, the store are those of a run that nobody disturbed."""
    for scratch in scratch_files(space):
        os.utime(scratch, (0, 0))
    assert space.cli("gc").code == 0
    assert scratch_files(space) == []
    assert list(space.store.glob("tmp/*")) == []
    assert space.shown() == built.shown()
    assert space.report == built.report
    assert {p.name for p in space.store.glob("objects/*/*")} == {p.name for p in built.store.glob("objects/*/*")}
    again = space.build()
    assert (again.built, again.restored) == (set(), set()), again.output


def scratch_files(space: BuildSpace) -> list[Path]:
    """Return what was on its way to its place when its writer was killed."""
    known = {space.artifacts / name for name in (".store", ".checkout", ".digests.json", ".manifests", ".toy.lock")}
    known.add(space.view / ".manifest")
    return [path for path in space.artifacts.rglob(".*") if path not in known]


def workers_in(space: BuildSpace) -> list[int]:
    """Return the workers of a project; the fork server is none."""
    module = b"sam3_build.execution.worker"
    return [pid for pid in processes_in(space.root) if module in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]


def nobody_left(space: BuildSpace) -> bool:
    return wait_until(lambda: not processes_in(space.root), 2)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_whatever_moment_doit_is_killed_at_no_worker_survives_and_finished_work_is_kept(
    fresh: BuildSpace, built: BuildSpace, number: signal.Signals, seed: int
) -> None:
    moments = random.Random(f"{number} {seed}")
    done: list[str] = []
    for _ in range(4):
        process = fresh.start("-n", str(1 + seed % 2))
        time.sleep(moments.uniform(0.2, 0.8))
        process.send_signal(number)
        run = finish(process)
        assert nobody_left(fresh)
        assert "Traceback" not in run.output
        done += run.built_lines
    last = fresh.build()
    done += last.built_lines
    assert len(done) == len(set(done)), "an action was built again that had been reported as built"
    assert set(done) <= ACTIONS and last.code == 0
    assert_as_if_nothing_had_happened(fresh, built)


@dataclass(frozen=True)
class Point:
    """Where doit is killed: before it renames something to such a path, for the `count`th time."""

    what: str
    at: str
    count: int = 1


POINTS = (
    Point("before the object is there", r"/objects/", 5),
    Point("after the object, before its record", r"/records/", 5),
    Point("after the record, before the view", r"/toy/head/head\.fp16\.onnx$"),
    Point("in the view, before the sidecar", r"/toy/head/head\.fp16\.onnx\.json$"),
    Point("after the view, before the history", r"/names/", 9),
    Point("before the report", r"/report\.json$"),
)


HALF = matching("checkpoint", "samples", "*:encoder", "*:encoder.*")


@pytest.fixture(scope="module")
def half_built(built: BuildSpace, tmp_path_factory: pytest.TempPathFactory) -> BuildSpace:
    """A project in which one of the two components was built and measured. Tests only read it."""
    space = built.clone(tmp_path_factory.mktemp("half") / "project")
    run = space.build("build:encoder", *sorted(matching("verify:encoder.*")))
    assert run.built == HALF, run.output
    (space.root / "site").mkdir()
    (space.root / "site" / "sitecustomize.py").write_text(CRASH)
    return replace(space, workers=True)


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.what)
def test_a_kill_between_two_writes_leaves_the_old_state_or_the_new_one(
    half_built: BuildSpace, built: BuildSpace, point: Point, tmp_path: Path
) -> None:
    space = half_built.copy(tmp_path / "project")
    killed = space.doit(CRASH_AT=point.at, CRASH_COUNT=str(point.count))
    assert killed.code == -signal.SIGKILL, killed.output
    assert nobody_left(space)
    assert space.cli("plan").code == 0
    rest = space.build()
    assert not rest.built & killed.built, rest.output
    unreported = ACTIONS - HALF - (rest.built | killed.built)
    assert len(unreported) <= 1, "more than the action in flight was built without being reported"
    assert not (rest.built | killed.built) & HALF
    assert_as_if_nothing_had_happened(space, built)


def test_a_worker_that_is_killed_alone_is_one_clear_error_that_names_its_log(fresh: BuildSpace) -> None:
    process = fresh.start("build:head.fp16.ada", TOY_SLOW="30")
    log = fresh.view / "logs" / "build.head.fp16.ada.log"
    assert wait_until(log.exists, 20)
    assert wait_until(lambda: len(workers_in(fresh)) == 1, 5)
    os.kill(*workers_in(fresh), signal.SIGKILL)
    run = finish(process)
    assert_one_clear_error(run, "SIGKILL", "artifacts/toy/logs/build.head.fp16.ada.log")
    assert nobody_left(fresh)
    assert not list(fresh.store.glob("tmp/*"))
    assert fresh.build("build:head.fp16.ada").built == {"build:head.fp16.ada"}


def test_an_interrupt_ends_the_workers_too(fresh: BuildSpace) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background job ignores it, and all it starts
    process = fresh.start("-n", "2", "build", TOY_SLOW="30")
    assert wait_until(lambda: len(list(fresh.view.glob("logs/build.*"))) == 2, 20)
    process.send_signal(signal.SIGINT)
    run = finish(process)
    assert run.code == -signal.SIGINT  # a shell shows 130
    assert "interrupted: what was finished is kept" in run.output
    assert "Traceback" not in run.output
    assert nobody_left(fresh)
    assert fresh.build().code == 0


def assert_one_clear_error(run: Run, *words: str) -> None:
    assert run.code not in (0, 3), run.output
    assert "Traceback" not in run.output, run.output
    assert run.output.count("FAILED    ") == 1, run.output
    for word in words:
        assert word in run.output, run.output


# ------------------------------------------------------------------ disks


@dataclass(frozen=True)
class Disk:
    """A small file system of its own, seen only inside a mount namespace; `inside` is the argv that enters it."""

    mount: Path
    keeper: int

    def inside(self, folder: Path) -> tuple[str, ...]:
        enter = ("nsenter", "-t", str(self.keeper), "-U", "-m", "--preserve-credentials")
        return (*enter, "sh", "-c", 'cd "$0" && exec "$@"', str(folder))

    @property
    def outside(self) -> Path:
        """The same folder as a process outside of the namespace reaches it."""
        return Path(f"/proc/{self.keeper}/root{self.mount}")

    def remount(self, options: str) -> None:
        subprocess.run(
            [*self.inside(Path("/")), "mount", "-o", f"remount,{options}", "tmpfs", str(self.mount)], check=True
        )


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    mount = tmp_path / "disk"
    mount.mkdir()
    script = 'mount -t tmpfs -o size=64k tmpfs "$1" && echo ready && exec sleep 300'
    if not shutil.which("unshare") or not shutil.which("nsenter"):
        pytest.skip("a small disk needs unshare and nsenter (util-linux)")
    keeper = subprocess.Popen(
        ["unshare", "-Urm", "sh", "-c", script, "sh", str(mount)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert keeper.stdout and keeper.stderr
        if keeper.stdout.readline() != b"ready\n":
            pytest.skip(f"a small disk needs user namespaces: {keeper.stderr.read().decode().strip()}")
        yield Disk(mount, keeper.pid)
    finally:
        keeper.kill()
        keeper.communicate()


@pytest.mark.parametrize("kilobytes", [12, 64, 200])
def test_a_full_disk_is_one_clear_error_and_what_was_finished_is_kept(
    fresh: BuildSpace, built: BuildSpace, disk: Disk, kilobytes: int
) -> None:
    space = replace(fresh, prefix=disk.inside(fresh.root))
    disk.remount(f"size={kilobytes}k")
    store = {"SAM3_STORE": str(disk.mount / "store")}
    full = space.doit(**store)
    assert_one_clear_error(full, "SAM3_STORE")
    assert re.search("No space left on device|disk of .* is full", full.output), full.output
    disk.remount("size=8m")
    rest = space.build(**store)
    assert not rest.built & full.built, rest.output
    unreported = ACTIONS - (rest.built | full.built)
    assert len(unreported) <= 1, "more than the action that failed was built without being reported"
    assert space.shown() == built.shown()
    assert space.report == built.report


def test_a_disk_that_fills_up_while_a_stage_writes_is_one_clear_error(fresh: BuildSpace, disk: Disk) -> None:
    space = replace(fresh, prefix=disk.inside(fresh.root))
    config = fresh.root / "manifests/config.json"
    config.write_text(f'{{"padding": "{"x" * 100_000}"}}')
    store = {"SAM3_STORE": str(disk.mount / "store")}
    full = space.doit(**store)
    assert_one_clear_error(full, "FAILED    checkpoint", "SAM3_STORE", "logs/checkpoint.log")
    disk.remount("size=8m")
    assert space.build(**store).built == ACTIONS


def test_on_a_read_only_disk_a_no_op_succeeds_and_a_build_is_one_clear_error(built: BuildSpace, disk: Disk) -> None:
    disk.remount("size=32m")
    root = disk.mount / "project"
    root.mkdir()
    space = BuildSpace(root, disk.inside(root), workers=True)
    seen = built.copy(disk.outside / "project")
    assert space.build().built == set()
    disk.remount("ro")
    idle = space.build()
    assert (idle.built, idle.restored) == (set(), set()), idle.output
    assert idle.output.endswith("toy: 0 built, 25 fresh\n")
    assert space.cli("plan").code == 0
    disk.remount("rw")
    seen.edit("manifests/toy.yaml", "opset: 20", "opset: 19")
    disk.remount("ro")
    refused = space.doit()
    assert_one_clear_error(refused, "Read-only file system", "SAM3_STORE")
    disk.remount("rw")
    assert "export:head" in space.build().built


def test_a_read_only_store_is_read_and_never_written(built: BuildSpace, fresh: BuildSpace, disk: Disk) -> None:
    disk.remount("size=32m")
    shutil.copytree(built.store, disk.outside / "store")
    disk.remount("ro")
    space = replace(fresh, prefix=disk.inside(fresh.root))
    states = space.cli("plan", SAM3_STORE=str(disk.mount / "store"))
    assert f"{len(ACTIONS)} fresh" in states.output
    restored = space.build(SAM3_STORE=str(disk.mount / "store"))
    assert (restored.built, restored.restored) == (set(), SHOWN), restored.output
    space.edit("manifests/toy.yaml", "opset: 20", "opset: 19")
    refused = space.doit(SAM3_STORE=str(disk.mount / "store"))
    assert_one_clear_error(refused, "Read-only file system", "SAM3_STORE")

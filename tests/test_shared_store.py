"""A store that several accounts share: what may be read is used, and what is made in it is the group's."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from build_space import ROOT, SHOWN, BuildSpace
from obedient import obedient

from sam3_build.digest import DigestCache
from sam3_build.store.objects import Record, Store

KEY = "a" * 64


def only_readable(*folders: Path) -> None:
    """Take the right to write away from folders and all in them, as it is for whoever shares what umask 022 made."""
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)


@pytest.fixture
def shared(built: BuildSpace, tmp_path: Path) -> Iterator[Path]:
    """A full store whose top folder its group may write to."""
    store = tmp_path / "shared"
    shutil.copytree(built.store, store)
    store.chmod(0o775)
    yield store
    for folder in store.rglob("*"):
        if folder.is_dir():
            folder.chmod(0o755)


@pytest.mark.parametrize("lock", [0o444, 0o000], ids=oct)
def test_a_store_of_which_only_the_top_may_be_written_is_read_and_that_is_said_once(
    fresh: BuildSpace, shared: Path, lock: int
) -> None:
    """Its lock may be read, and so taken, or not even that."""
    only_readable(*shared.iterdir())
    (shared / "locks" / "gc").chmod(lock)
    space = replace(fresh, prefix=obedient())
    run = space.build(SAM3_STORE=str(shared))
    assert (run.built, run.restored) == (set(), SHOWN), run.output
    notes = [line for line in run.output.splitlines() if "Permission denied" in line]
    assert len(notes) == 1 and notes[0].startswith(f"  note  {shared} is read, and written as far as it may be: ")
    assert space.build(SAM3_STORE=str(shared)).restored == set()


@pytest.mark.parametrize("denied", ["locks", "tmp", "records", "objects"])
def test_a_build_into_a_part_of_a_store_that_may_not_be_written_is_one_clear_error_before_any_work(
    fresh: BuildSpace, shared: Path, denied: str
) -> None:
    for path in (*shared.glob("records/*/*"), *shared.glob("locks/*")):
        path.unlink()
    only_readable(shared / denied)
    run = replace(fresh, prefix=obedient()).doit("checkpoint", SAM3_STORE=str(shared))
    assert run.code == 1 and "Traceback" not in run.output, run.output
    assert run.output.count("FAILED    ") == 1, run.output
    said = rf"\n{shared / denied}(/..)?: Permission denied; its group may write to {shared} and not there"
    assert re.search(said, run.output), run.output
    assert f"let the owner run `find {shared} " in run.output
    assert not (fresh.view / "logs").exists(), "a worker ran, and what it wrote was lost"


def test_nothing_is_built_into_a_store_that_cannot_be_held_against_collection(fresh: BuildSpace, shared: Path) -> None:
    for path in shared.glob("records/*/*"):
        path.unlink()
    (shared / "locks" / "gc").chmod(0o000)
    run = replace(fresh, prefix=obedient()).doit("checkpoint", SAM3_STORE=str(shared))
    assert run.code == 1 and "Traceback" not in run.output, run.output
    assert f"\n{shared}/locks/gc: Permission denied; its group may write to {shared} and not there" in run.output
    assert not (fresh.view / "logs").exists()


COMMIT = """
import sys
from pathlib import Path
from sam3_build.digest import DigestCache
from sam3_build.errors import DeniedError
from sam3_build.store.objects import Store
store = Store(Path(sys.argv[1]), DigestCache(Path(sys.argv[1]) / "none"), "here")
out = store.workdir("a" * 64) / "out"
out.mkdir()
(out / "x").write_bytes(b"1")
for path in (store.root / "objects").iterdir():
    path.chmod(0o555)
try:
    store.commit(key="a" * 64, action="build:x", document={}, out=out, facts={}, provenance={})
except DeniedError as error:
    print(error)
"""


def commit(store: Store) -> Record:
    out = store.workdir(KEY) / "out"
    out.mkdir()
    (out / "x").write_bytes(b"1")
    return store.commit(key=KEY, action="build:x", document={}, out=out, facts={}, provenance={})


def test_a_commit_that_is_denied_names_the_folder_and_what_gives_it_to_the_group(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", DigestCache(tmp_path / "cache"), "here")
    folder = store.object_path(commit(store).object)
    shutil.rmtree(folder)
    store.root.chmod(0o775)
    done = subprocess.run(
        [*obedient(), sys.executable, "-c", COMMIT, str(store.root)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    folder.parent.chmod(0o755)
    assert done.stdout.startswith(f"{folder.parent}: Permission denied; its group may write"), done.stderr
    found = re.search("let the owner run `(.*)`, or set SAM3_STORE to a folder of yours", done.stdout)
    assert found
    commit(store)
    for path in store.root.rglob("*"):
        path.chmod(0o444 if path.name == "x" else 0o700 if path.is_dir() else 0o600)
    subprocess.run(["sh", "-c", found[1]], check=True)
    assert modes(folder) == {"x": "0o444"}
    rest = [path for path in store.root.rglob("*") if path.name != "x"]
    assert {(path.is_dir(), oct(path.stat().st_mode & 0o777)) for path in rest} == {(True, "0o770"), (False, "0o660")}


ABANDONED = """
import sys
from pathlib import Path
from sam3_build.digest import DigestCache
from sam3_build.commands.gc import _abandoned
from sam3_build.store.objects import Store
print([path.name[:1] for path in _abandoned(Store(Path(sys.argv[1]), DigestCache(Path("none")), "here"))])
"""


def test_the_work_folder_of_another_account_s_run_is_not_taken_for_abandoned(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", DigestCache(tmp_path / "cache"), "here")
    for key in (KEY, "b" * 64):
        with store.lock(key):
            store.workdir(key)
    (store.root / "locks" / KEY).chmod(0o000)
    done = subprocess.run(
        [*obedient(), sys.executable, "-c", ABANDONED, str(store.root)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "['b']\n", done.stderr


# ------------------------------------------------------------------ what is made is the group's


@pytest.fixture(params=[0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def use(store: Store) -> None:
    with store.using(), store.lock(KEY):
        commit(store)
        store.remember("toy", "build:x", KEY)


def modes(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): oct(stat.S_IMODE(path.stat().st_mode)) for path in root.rglob("*")}


@pytest.mark.usefixtures("umask")
def test_below_a_top_folder_that_a_group_may_write_to_all_is_the_group_s_and_objects_stay_read_only(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path / "store", DigestCache(tmp_path / "cache"), "here")
    store.root.mkdir()
    store.root.chmod(0o770)
    os.chown(store.root, -1, other_group())
    use(store)
    found = {path: int(mode, 8) & 0o070 for path, mode in modes(store.root).items()}
    folders = {path for path in found if (store.root / path).is_dir()}
    objects = {path for path in found if path.startswith("objects/")} - folders
    assert len(folders) == 11 and len(objects) == 1 and len(found) == 16, found
    assert {found[path] for path in folders} == {0o070}
    assert {found[path] for path in objects} == {0o040}
    assert {found[path] for path in found.keys() - folders - objects} == {0o060}
    assert {path.stat().st_gid for path in store.root.rglob("*") if path.name != "x"} == {other_group()}


def other_group() -> int:
    """Return a group that files can be given to, and that new ones do not have by themselves where there is one."""
    groups = [65534] if os.geteuid() == 0 else os.getgroups()
    return next((group for group in groups if group != os.getegid()), os.getegid())


def test_below_a_top_folder_of_one_account_modes_are_what_the_umask_says(tmp_path: Path, umask: int) -> None:
    store = Store(tmp_path / "store", DigestCache(tmp_path / "cache"), "here")
    use(store)
    found = modes(store.root)
    assert found.pop(next(path for path in found if path.endswith("/x"))) == "0o444"
    assert set(found.values()) == {oct(0o777 & ~umask), oct(0o666 & ~umask)}


def test_what_its_owner_made_before_the_store_was_shared_is_given_to_the_group_when_it_is_written_again(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path / "store", DigestCache(tmp_path / "cache"), "here")
    use(store)
    assert modes(store.root)["locks"] == modes(store.root)["locks/gc"].replace("644", "755") == "0o755"
    store.root.chmod(0o775)
    use(store)
    found = modes(store.root)
    assert (found["locks"], found["locks/gc"], found["tmp"], found["objects"]) == ("0o775", "0o664", "0o775", "0o775")


def test_below_artifacts_that_a_group_may_write_to_caches_locks_and_the_view_are_the_group_s(
    fresh: BuildSpace,
) -> None:
    fresh.artifacts.mkdir()
    fresh.artifacts.chmod(0o770)
    space = replace(fresh, prefix=("sh", "-c", 'umask 077; exec "$0" "$@"'))
    space.build("build:head.fp16.ada")
    view = [fresh.view, fresh.view / "head", fresh.view / "logs", *(fresh.view / "logs").iterdir()]
    names = (".checkout", ".digests.json", ".manifests", ".toy.lock", ".store/locks", ".store/tmp")
    caches = [*(fresh.artifacts / name for name in names), *(fresh.artifacts / ".manifests").iterdir()]
    wanted = {path: 0o070 if path.is_dir() else 0o060 for path in [*view, *caches]}
    assert {path: path.stat().st_mode & 0o070 for path in wanted} == wanted

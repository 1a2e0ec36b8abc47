"""File systems without locks: one message that names the folder, what it needs, and what helps there."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from pathlib import Path

import pytest
from build_space import BuildSpace

from sam3_build.digest import DigestCache
from sam3_build.documents import Params
from sam3_build.errors import BuildError, StoreError
from sam3_build.machine import gpu_lock
from sam3_build.spec import Action
from sam3_build.store.objects import FileFact, Record, Store
from sam3_build.store.view import View

NUMBERS = sorted({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})


@pytest.fixture(params=NUMBERS, ids=lambda number: errno.errorcode[number])
def said(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """No file can be locked; return what the system says then."""

    def flock(descriptor: int, kind: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)
    return os.strerror(request.param)


def test_a_store_without_locks_is_told_with_its_folder_and_another_place_for_it(tmp_path: Path, said: str) -> None:
    store = Store(tmp_path / "store", DigestCache(tmp_path / "cache"), "here")
    wanted = f"{store.root / 'locks'}: {said}; this file system has no locks, .*: set SAM3_STORE to a folder on a local"
    for held in (store.using(), store.lock("a" * 64), store.exclusive(lambda: None)):
        with pytest.raises(StoreError, match=wanted), held:
            pytest.fail("this was held without a lock")


def test_a_view_without_locks_is_told_with_the_folder_of_artifacts_which_no_store_elsewhere_moves(
    tmp_path: Path, said: str
) -> None:
    view = View(tmp_path / "artifacts" / "toy", Store(tmp_path / "store", DigestCache(tmp_path / "cache"), "here"))
    record = Record("a" * 64, "build:x", {}, "b" * 64, {"x": FileFact("c" * 64, 1)}, {}, {})
    with pytest.raises(StoreError) as caught:
        view.publish(Action("build:x", "build", Params(), (), (), view={"x": "x/x"}), record)
    told = str(caught.value)
    assert told.startswith(f"{tmp_path / 'artifacts'}: {said}; this file system has no locks, ")
    assert told.endswith("put the project on a local disk, or make its artifacts/ a link to a folder on one")
    assert "SAM3_STORE" not in told


def test_a_gpu_whose_lock_cannot_be_taken_is_told_with_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr(gpu_lock, "LOCKS", tmp_path)
    wanted = f"^{tmp_path}: the GPU's lock cannot be taken: {said}; .* a file system with locks there"
    with pytest.raises(BuildError, match=wanted), gpu_lock.lock("GPU-x", lambda: None):
        pytest.fail("this was held without a lock")


# ------------------------------------------------------------------ through the front ends

# Loaded by every Python of a space that finds it: what lies below WITHOUT_LOCKS cannot be locked.
WITHOUT_LOCKS = """
import errno, fcntl, os
folder, real = os.environ.get("WITHOUT_LOCKS"), fcntl.flock
def flock(descriptor, kind):
    if os.readlink(f"/proc/self/fd/{descriptor}").startswith(f"{folder}/"):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    return real(descriptor, kind)
if folder:
    fcntl.flock = flock
"""


@pytest.fixture
def lockless(fresh: BuildSpace) -> BuildSpace:
    """A project that was not built, in which WITHOUT_LOCKS says which folder has no locks."""
    (fresh.root / "site").mkdir()
    (fresh.root / "site" / "sitecustomize.py").write_text(WITHOUT_LOCKS)
    return fresh


@pytest.mark.parametrize("command", [("samples",), ("publish",), ("nightly",)], ids=" ".join)
def test_doit_says_once_that_the_store_needs_locks(lockless: BuildSpace, tmp_path: Path, command: tuple[str]) -> None:
    store = str(tmp_path / "store")
    run = lockless.doit(*command, SAM3_STORE=store, WITHOUT_LOCKS=store)
    assert run.code in (1, 2) and "Traceback" not in run.output, run.output
    message = f"{store}/locks: No locks available; this file system has no locks"
    assert message in run.output and "set SAM3_STORE to a folder on a local disk" in run.output, run.output
    if command == ("samples",):
        assert run.output.count("No locks available") == 1, run.output
    assert not list(Path(store).glob("tmp/*"))


def test_a_command_says_that_the_store_needs_locks(lockless: BuildSpace) -> None:
    run = lockless.cli("gc", WITHOUT_LOCKS=str(lockless.root))
    assert run.code == 1 and "Traceback" not in run.output, run.output
    assert re.fullmatch(r".*/artifacts/\.store/locks: No locks available; .*\n", run.output), run.output


def test_a_project_without_locks_is_built_where_its_artifacts_are_a_link_to_a_folder_with_locks(
    lockless: BuildSpace, tmp_path: Path
) -> None:
    environ = {"WITHOUT_LOCKS": str(lockless.root), "SAM3_STORE": str(tmp_path / "store")}
    run = lockless.doit("precision:head.fp16", **environ)
    assert run.code == 1 and "Traceback" not in run.output, run.output
    message = f"{lockless.artifacts}: No locks available; this file system has no locks"
    assert run.output.count("FAILED    ") == run.output.count(message) == 1, run.output
    local = tmp_path / "local"
    lockless.artifacts.rename(local)
    lockless.artifacts.symlink_to(local)
    again = lockless.build("precision:head.fp16", WITHOUT_LOCKS=str(lockless.root))
    assert "precision:head.fp16" in again.built
    assert lockless.build("precision:head.fp16", WITHOUT_LOCKS=str(lockless.root)).built == set()

"""Writes and locks below `artifacts/`: an error of the system becomes one that says where it was and what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sam3_build.errors import DeniedError, StoreError
from sam3_build.machine.locks import NO_LOCKS, open_lock, take

NO_LOCKS_HERE = "this file system has no locks, and without them two runs would write over each other's files: "
LOCAL_STORE = "set SAM3_STORE to a folder on a local disk (a project that lies here too needs its artifacts/ on one)"
_LOCAL_PROJECT = "put the project on a local disk, or make its artifacts/ a link to a folder on one"


@contextmanager
def hold(path: Path, kind: int, waiting: Callable[[], None] | None = None) -> Iterator[int]:
    """Hold the lock file at `path`, below the project's artifacts (fcntl.LOCK_SH or LOCK_EX).

    `waiting` is called once when it is not free. StoreError where it cannot be held.
    """
    with held(path, kind, waiting, dict.fromkeys(NO_LOCKS, NO_LOCKS_HERE + _LOCAL_PROJECT)) as descriptor:
        yield descriptor


@contextmanager
def held(path: Path, kind: int, waiting: Callable[[], None] | None, advice: Mapping[int, str]) -> Iterator[int]:
    """Hold the lock file at `path` as `hold` does, with what to do about an error (errno -> text)."""
    with writing(path, advice):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = open_lock(path)
    try:
        with writing(path.parent, advice):
            take(descriptor, kind, waiting)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def writing(path: Path, advice: Mapping[int, str] | None = None) -> Iterator[None]:
    """Turn an OSError of the body into a StoreError that says where and what to do (`advice`: errno -> text)."""
    try:
        yield
    except OSError as error:
        raise store_error(error, path, advice or {}) from error


def store_error(error: OSError, path: Path, special: Mapping[int, str]) -> StoreError:
    """Return an OSError at `path` as an error that says where it was and what to do (`special`: errno -> text)."""
    advice = {
        errno.ENOSPC: "free some space (`sam3-build gc` may help) or set SAM3_STORE to another disk",
        errno.EDQUOT: "free some space or set SAM3_STORE to another disk",
        errno.EROFS: "it is read-only: set SAM3_STORE to a folder that can be written",
        errno.EACCES: "you may not write there: fix its permissions or set SAM3_STORE to a folder of yours",
        errno.EPERM: "you may not write there: fix its permissions or set SAM3_STORE to a folder of yours",
        **special,
    }
    message = os.strerror(error.errno) if error.errno else str(error)
    kind = DeniedError if isinstance(error, PermissionError) else StoreError
    return kind(f"{_where(error, path)}: {message}; {advice.get(error.errno or 0, 'check this folder')}")


def _where(error: OSError, path: Path) -> Path:
    """Return the path that an error is about; where it was denied, the folder or file that may not be written."""
    named = [Path(os.fsdecode(name)) for name in (error.filename2, error.filename) if name] or [path]
    if isinstance(error, PermissionError):
        for place in named:
            existing = next((p for p in (place, *place.parents) if os.access(p, os.F_OK)), place)
            if not os.access(existing, os.W_OK):
                return existing
    return named[-1]

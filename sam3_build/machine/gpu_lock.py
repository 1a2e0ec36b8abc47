"""The lock of a GPU: whoever builds or measures on it holds it, for all users and checkouts of a machine."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sam3_build.errors import BuildError
from sam3_build.machine.locks import take

# One place for all users and checkouts of a machine. It is not TMPDIR, which may differ between them.
LOCKS = Path("/tmp")  # noqa: S108  (opened without following links, never written)


@contextmanager
def lock(uuid: str, waiting: Callable[[], None]) -> Iterator[int]:
    """Hold the machine-wide lock of the GPU `uuid` and yield its descriptor (a child that inherits it holds it too).

    `waiting` is called once when somebody else builds or measures there; then this waits.
    """
    path = LOCKS / f"sam3_build.{uuid}.lock"
    descriptor = _open(path)
    try:
        try:
            take(descriptor, fcntl.LOCK_EX, waiting)
        except OSError as error:
            why = (
                "runs take a GPU one after another, and need a file system with locks there: mount a local one (tmpfs)"
            )
            raise BuildError(f"{path.parent}: the GPU's lock cannot be taken: {error.strerror}; {why}") from error
        yield descriptor
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    """Open a lock file for reading, which is enough to lock it; make it, for everybody, only where there is none.

    Linux refuses O_CREAT on another user's file in a shared folder, so it is used for new files only.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        try:
            return _regular_file(os.open(path, flags))
        except FileNotFoundError:
            with suppress(FileExistsError):
                created = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o444)
                os.fchmod(created, 0o444)  # whatever the umask: the next one may be another user's
                os.close(created)
            return _regular_file(os.open(path, flags))
    except OSError as error:
        raise BuildError(f"{path}: the GPU's lock file cannot be opened: {error.strerror}") from error


def _regular_file(descriptor: int) -> int:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "it is not a regular file")
    return descriptor

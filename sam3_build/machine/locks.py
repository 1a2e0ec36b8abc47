"""Locks: files that one process at a time holds, by flock. A child that inherits the descriptor holds it too."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from sam3_build.folders import share

# What flock says on a file system that has none: some network file systems, as they are mounted or served.
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})


def open_lock(path: Path) -> int:
    """Open the lock file at `path`, made where there is none; return its descriptor. OSError as `os.open`.

    One of another account that may only be read can be locked all the same.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except PermissionError as denied:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            raise denied from None
    share(path, path.parent)
    return descriptor


def take(descriptor: int, kind: int, waiting: Callable[[], None] | None = None) -> None:
    """Take the lock (fcntl.LOCK_SH or LOCK_EX); call `waiting` once when it is not free. OSError as `fcntl.flock`."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        if waiting:
            waiting()
        fcntl.flock(descriptor, kind)

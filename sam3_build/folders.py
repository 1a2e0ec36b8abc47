"""Makes folders and writes files: whole or not at all, and shared with a group whatever the umask.

What is made below a folder that its group may write to belongs to that group, also where the folder is not setgid.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO


def make_folder(path: Path, top: Path) -> None:
    """Make `path`, which lies below `top`, and what is missing on the way; all of it is shared as `top` is.

    A new `top` is shared as the folder that it lies in.
    """
    if not top.is_dir():
        top.mkdir(parents=True, exist_ok=True)
        share(top, top.parent)
    folder = top
    for part in path.relative_to(top).parts:
        folder /= part
        folder.mkdir(exist_ok=True)
        share(folder, top)


def is_shared(folder: Path) -> bool:
    """Whether there is such a folder, and its group may write to it."""
    try:
        mode = folder.stat().st_mode
    except OSError:
        return False
    return stat.S_ISDIR(mode) and bool(mode & stat.S_IWGRP)


def share(path: Path, top: Path) -> None:
    """Let the group of `top` read and write `path`, and enter it, where it may write to `top`; else leave it alone.

    Only its owner can do so: another account's is left alone too, and so is what the file system has no modes for.
    """
    if not is_shared(top):
        return
    wanted, found = top.stat(), path.stat()
    mode = found.st_mode | (0o070 if stat.S_ISDIR(found.st_mode) else 0o060)
    with suppress(OSError):
        if found.st_gid != wanted.st_gid and hasattr(os, "chown"):  # Windows has no groups
            os.chown(path, -1, wanted.st_gid)
        if mode != found.st_mode:
            path.chmod(stat.S_IMODE(mode))


def write_atomically(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write `data` to `path` by a temporary file and a rename: readers see the old bytes or the new ones.

    durable: whether the bytes are on the disk afterwards; not needed for what only saves time. OSError as for a write
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name.removeprefix('.')}.{os.getpid()}.{id(data):x}")
    try:
        with scratch.open("wb") as file:
            file.write(data)
            share(scratch, path.parent)
            if durable:
                sync_file(file)
        scratch.replace(path)
        if durable:
            sync_folder(path.parent)
    finally:
        with suppress(OSError):  # on a read-only disk even this is refused
            scratch.unlink()


def sync_file(file: IO[bytes]) -> None:
    """Flush a file down to the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Flush a folder's entries down to the disk, where a folder can be opened: on Windows it cannot."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""A published folder, which others take files from: replaced as a whole, in one step, and checked by SHA256SUMS.

Who looks sees the old folder or the new one, whatever is killed: it is filled beside its place, synced, held to the
digests, and exchanged in one rename. Where the file system cannot exchange, the old one is set aside first, and put
back by the next run if this one dies in between. `SHA256SUMS` lists every other file for `sha256sum -c`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from sam3_build.digest import DigestCache
from sam3_build.errors import StoreError
from sam3_build.folders import sync_folder
from sam3_build.store.view import place
from sam3_build.store.writing import writing

SUMS = "SHA256SUMS"

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def sums(digests: Mapping[str, str]) -> bytes:
    """Return the text of SHA256SUMS: file name -> sha256 (hex), in the order of the names."""
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()


def listed(folder: Path) -> dict[str, str]:
    """Return file name -> sha256 as the folder's SHA256SUMS lists them; nothing when there is no such folder."""
    try:
        lines = (folder / SUMS).read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines) if name}


def digests_of(folder: Path, digests: DigestCache) -> dict[str, str]:
    """Return path -> sha256 of every file that lies below the folder but SHA256SUMS, whatever that says of them."""
    return {name: digests.file(path) for name, path in _files_in(folder).items()}


def unexpected_files(folder: Path, digests: DigestCache) -> dict[str, str | None]:
    """Return name -> sha256 of every file that is not what SHA256SUMS says; None for one that is listed and gone.

    A file that is not listed is unexpected too. Nothing when there is no folder.
    """
    wanted = listed(folder)
    found: dict[str, str | None] = dict.fromkeys(wanted)
    found |= digests_of(folder, digests)
    found |= dict.fromkeys(_empty_folders(folder), "a folder")
    return {name: digest for name, digest in found.items() if digest != wanted.get(name)}


def replace(folder: Path, files: Mapping[str, Path | bytes], wanted: Mapping[str, str], digests: DigestCache) -> None:
    """Make `folder` hold exactly `files` (copied from a path, or the bytes themselves) and their SHA256SUMS.

    files:  path below the folder -> content
    wanted: path -> sha256; StoreError, with the folder untouched, when what was written is something else
    """
    new = folder.with_name(f".{folder.name}.new")
    with writing(folder):
        recover(folder)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        for name, content in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            _write(new / name, content)
        for name in files:
            if (found := digests.file(new / name)) != wanted[name]:
                raise StoreError(f"{folder}: {name} has the sha256 {found} and should have {wanted[name]}; run again")
        _write(new / SUMS, sums(wanted))
        for path in (new, *(path for path in new.rglob("*") if path.is_dir())):
            sync_folder(path)
        _swap(new, folder)
        sync_folder(folder.parent)


def _files_in(folder: Path) -> dict[str, Path]:
    """Return path below the folder -> file, of all but SHA256SUMS."""
    paths = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path for name, path in paths.items() if name != SUMS}


def _empty_folders(folder: Path) -> list[str]:
    return [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_dir() and not any(p.iterdir())]


def withdraw(folder: Path) -> None:
    """Take the folder away, at once."""
    gone = folder.with_name(f".{folder.name}.gone")
    with writing(folder):
        recover(folder)
        shutil.rmtree(gone, ignore_errors=True)
        if folder.exists():
            folder.rename(gone)
            sync_folder(folder.parent)
        shutil.rmtree(gone, ignore_errors=True)


def recover(folder: Path) -> None:
    """Put back what a run that was killed between two renames had set aside."""
    aside = _aside(folder)
    if aside.exists() and not folder.exists():
        aside.rename(folder)
    shutil.rmtree(aside, ignore_errors=True)


def _write(path: Path, content: Path | bytes) -> None:
    if isinstance(content, Path):
        place(content, path)
    else:
        path.write_bytes(content)
        path.chmod(0o444)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _swap(new: Path, folder: Path) -> None:
    """Put `new` into the place of `folder`, and remove what was there."""
    if not folder.exists():
        new.rename(folder)
    elif _exchange(new, folder):
        shutil.rmtree(new)
    else:
        folder.rename(_aside(folder))
        new.rename(folder)
        shutil.rmtree(_aside(folder))


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; False where the system or the file system cannot (renameat2, Linux)."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    if (number := ctypes.get_errno()) in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), str(other))

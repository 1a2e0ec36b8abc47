"""Whose a folder `artifacts/<name>/` is: two manifests of one file name would share what it shows, tells and publishes.

It names its manifest in `.manifest`, by the path from the checkout: a moved checkout stays what it was. Whoever writes
first owns it, and any other manifest is refused. A folder without that file is whose who writes into it next.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from sam3_build.errors import ManifestError
from sam3_build.folders import write_atomically
from sam3_build.store.view import KEPT
from sam3_build.store.writing import hold, writing

OWNER = ".manifest"


@dataclass(frozen=True)
class Ownership:
    """A folder of a checkout's `artifacts/`, and the manifest that wants it (its identity, see manifest/paths.py)."""

    folder: Path
    manifest: str
    checkout: Path

    def check(self) -> None:
        """Do nothing when the manifest may use the folder; ManifestError when that is another one's. Writes nothing."""
        if problem := self._problem(self._owner()):
            raise ManifestError([f"{self.manifest}: {problem}"])

    def claim(self) -> None:
        """Make the folder the manifest's, before anything is written into it. ManifestError as for `check`.

        What was built there before folders had owners, and what a manifest that is gone left and the store can
        restore, is taken over. StoreError when the folder cannot be written; one that has no owner yet and may only be
        read stays so: nothing can be written into it either.
        """
        self.check()
        if self._owner() == self.manifest or (self.folder.is_dir() and not os.access(self.folder, os.W_OK)):
            return
        with hold(_lock(self.folder), fcntl.LOCK_EX), writing(self.folder):
            self.check()  # of two that come at once, one waits here
            write_atomically(self.folder / OWNER, f"{self.manifest}\n".encode())

    def _owner(self) -> str | None:
        path = self.folder / OWNER
        try:
            return path.read_text(errors="replace").strip() or None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            with writing(path):
                raise error

    def _problem(self, owner: str | None) -> str | None:
        if owner in (None, self.manifest):
            return None
        folder = self.folder.relative_to(self.checkout)
        if (self.checkout / str(owner)).is_file():
            what = f"{folder} belongs to {owner}, another manifest of this file name"
            return f"{what}; rename one of the two, or move {folder} away"
        if not (kept := [name for name in KEPT if _holds_something(self.folder / name)]):
            return None
        what = f"{folder} belongs to {owner}, which is gone, and keeps what was made for it ({', '.join(kept)})"
        same = f"if this is that manifest under a new path, delete {folder / OWNER}"
        return f"{what}; {same}; else rename this one, or move {folder} away"


def release(folder: Path) -> None:
    """Remove a folder in which nothing is left but the name of its owner. OSError when that cannot be done."""
    if _is_bare(folder):
        with hold(_lock(folder), fcntl.LOCK_EX):
            if _is_bare(folder):
                (folder / OWNER).unlink()
                folder.rmdir()


def _is_bare(folder: Path) -> bool:
    return [path.name for path in folder.iterdir()] == [OWNER]


def _holds_something(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()


def _lock(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")

"""The view: readable, stable paths under `artifacts/<manifest>/` for what the store holds. Each file has a sidecar."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from sam3_build.digest import DigestCache
from sam3_build.folders import make_folder, write_atomically
from sam3_build.spec import Action
from sam3_build.store.objects import Record, Store
from sam3_build.store.writing import hold, writing

_FICLONE = 0x40049409

# Folders of a view that no action shows and that are nobody's leftovers: what was published, told and measured there.
KEPT = ("published", "nightly", "localize")


class View:
    """The folder `artifacts/<manifest>/`: published from records, checked by digest, safe to delete at any time."""

    def __init__(self, root: Path, store: Store) -> None:
        """Open the view at `root`; nothing is created before the first publish."""
        self.root = root
        self._prefix = f"{root}/"
        self._store = store
        self._digests: DigestCache = store.digests

    def intact(self, action: Action, record: Record) -> bool:
        """Tell whether every shown file has the record's bytes and every sidecar belongs to the record."""
        if not action.view:
            return True
        try:
            for name, fact in record.files.items():
                shown = shown_as(action, name)
                if shown and self._digests.file(self._prefix + shown) != fact.sha256:
                    return False
                if shown and _has_sidecar(shown) and not _names(f"{self._prefix}{shown}.json", record.key):
                    return False
        except OSError:
            return False
        return True

    def publish(self, action: Action, record: Record) -> None:
        """Show the record's files: reflinks where the file system has them, else copies, never links."""
        shown = {name: path for name in record.files if (path := shown_as(action, name))}
        if shown:
            with hold(self.root.with_name(f".{self.root.name}.lock"), fcntl.LOCK_EX):
                for name, path in shown.items():
                    self._show(action, record, name, path)

    def _show(self, action: Action, record: Record, name: str, shown: str) -> None:
        path = self.root / shown
        with writing(path):
            make_folder(path.parent, self.root.parent)
            for abandoned in path.parent.glob(f".{path.name}.*"):
                abandoned.unlink()  # by a run that was killed: publishing is done under a lock
            place(self._store.object_path(record.object) / name, path)
            if _has_sidecar(shown):
                write_atomically(_sidecar(path), sidecar(action, record))

    def paths(self, action: Action) -> list[Path]:
        """Return where the action's files, their external data and their sidecars are shown, there or not."""
        shown = [self.root / path for path in action.view.values()]
        return [path for main in shown for path in (main, main.with_name(f"{main.name}.data"), _sidecar(main))]


def sidecar(action: Action, record: Record) -> bytes:
    """Return what stands beside a file that is shown: the record of the action that made it."""
    return _pretty({**asdict(record), "action": action.name})


def shown_as(action: Action, file: str) -> str | None:
    """Return the view path of an output file, or None when it is not shown. External data lies beside its ONNX."""
    shown = action.view.get(file)
    if shown is None and file.endswith(".data") and (main := action.view.get(file.removesuffix(".data"))):
        return f"{main}.data"
    return shown


def _has_sidecar(shown: str) -> bool:
    return not shown.endswith((".json", ".data"))


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _names(sidecar: str, key: str) -> bool:
    """Tell whether a sidecar is the record of `key`, without parsing it: this runs for every file of every no-op."""
    with open(sidecar, "rb") as file:  # noqa: PTH123  (Path.open costs as much again)
        return f'"key": "{key}"'.encode() in file.read()


def _pretty(document: Mapping[str, object]) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def place(source: Path, target: Path) -> None:
    """Put the bytes of `source` at `target`, read-only, by a reflink or else a copy: never a link."""
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if not _reflink(source, scratch):
            shutil.copyfile(source, scratch)
        scratch.chmod(0o444)
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


def _reflink(source: Path, target: Path) -> bool:
    with source.open("rb") as reader, target.open("wb") as writer:
        try:
            fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
        except OSError:
            reflinked = False
        else:
            reflinked = True
    return reflinked

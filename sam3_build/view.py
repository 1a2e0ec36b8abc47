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
from sam3_build.spec import Action
from sam3_build.store import Record, Store, write_atomically, writing

_FICLONE = 0x40049409


class View:
    """The folder `artifacts/<manifest>/`: published from records, checked by digest, safe to delete at any time."""

    def __init__(self, root: Path, store: Store) -> None:
        """Open the view at `root`; nothing is created before the first publish."""
        self.root = root
        self._store = store
        self._digests: DigestCache = store.digests

    def path(self, action: Action, file: str) -> Path | None:
        """Return where `file` of the action's output is shown, or None when it is not. External data goes along."""
        shown = action.view.get(file)
        if shown is None and file.endswith(".data") and (main := action.view.get(file.removesuffix(".data"))):
            shown = f"{main}.data"
        return self.root / shown if shown else None

    def _shown(self, action: Action, record: Record) -> dict[str, Path]:
        return {name: path for name in record.files if (path := self.path(action, name))}

    def intact(self, action: Action, record: Record) -> bool:
        """Tell whether every shown file has the record's bytes and every sidecar belongs to the record."""
        if not action.view:
            return True
        try:
            for name, path in self._shown(action, record).items():
                if self._digests.file(path) != record.files[name].sha256:
                    return False
                if _has_sidecar(path) and json.loads(_sidecar(path).read_bytes())["key"] != record.key:
                    return False
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return True

    def publish(self, action: Action, record: Record) -> None:
        """Show the record's files: reflinks where the file system has them, else copies, never links."""
        shown = self._shown(action, record)
        source = self._store.object_path(record.object)
        for name, path in shown.items():
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                _place(source / name, path)
                if _has_sidecar(path):
                    write_atomically(_sidecar(path), _pretty(asdict(record)))

    def remove(self, action: Action) -> None:
        """Take the action's files and sidecars out of the view; the store keeps them."""
        for shown in action.view.values():
            path = self.root / shown
            for gone in (path, path.with_name(f"{path.name}.data"), _sidecar(path)):
                gone.unlink(missing_ok=True)
            if path.parent != self.root and path.parent.is_dir() and not any(path.parent.iterdir()):
                path.parent.rmdir()


def _has_sidecar(path: Path) -> bool:
    return path.suffix not in (".json", ".data")


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _pretty(document: Mapping[str, object]) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def _place(source: Path, target: Path) -> None:
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

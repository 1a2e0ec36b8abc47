"""Checked manifests, remembered: pydantic and YAML cost more than the rest of a no-op and run when something changed.

An entry holds while the YAML files, every module of the package and the Python version are what they were, and every
file that the manifest names is there.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path

from sam3_build.digest import PACKAGE, DigestCache, canonical, digest
from sam3_build.manifest import model
from sam3_build.manifest.model import Manifest
from sam3_build.spec import Json

_TYPES = {
    name: kind for name, kind in vars(model).items() if isinstance(kind, type) and kind.__module__ == model.__name__
}


def load(name_or_path: str, root: Path, digests: DigestCache, folder: Path) -> Manifest:
    """Return the manifest as `load.load` does, from `folder` where it was checked before. ManifestError as there."""
    entry = folder / f"{digest([name_or_path, str(Path.cwd()), str(root)])}.json"
    known = _recall(entry, root, digests)
    if known:
        return known
    from sam3_build.manifest.load import load as check

    manifest = check(name_or_path, root)
    _remember(entry, manifest, root, digests)
    return manifest


def _recall(entry: Path, root: Path, digests: DigestCache) -> Manifest | None:
    try:
        stored = json.loads(entry.read_bytes())
        manifest = _decode(stored["manifest"], root)
        assert isinstance(manifest, Manifest)
        if stored["fingerprint"] == _fingerprint(manifest, digests) and all(p.exists() for p in _paths(manifest)):
            return manifest
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no entry, or one of another version: the manifest is checked again
    return None


def _remember(entry: Path, manifest: Manifest, root: Path, digests: DigestCache) -> None:
    stored = {"fingerprint": _fingerprint(manifest, digests), "manifest": _encode(manifest, root)}
    scratch = entry.with_name(f".{entry.name}.{os.getpid()}")
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(canonical(stored))
        scratch.replace(entry)
    except OSError:
        with suppress(OSError):  # it will be checked again; a folder that cannot be written is reported later
            scratch.unlink()


def _fingerprint(manifest: Manifest, digests: DigestCache) -> str:
    code: Json = {name: digests.file(path) for name, path in _modules(str(PACKAGE), "")}
    return digest({"files": [digests.file(path) for path in manifest.files], "code": code, "python": sys.version})


def _modules(folder: str, prefix: str) -> Iterator[tuple[str, str]]:
    with os.scandir(folder) as entries:
        for found in entries:
            if found.name.endswith(".py"):
                yield prefix + found.name, found.path
            elif found.is_dir() and found.name != "__pycache__":
                yield from _modules(found.path, f"{prefix}{found.name}/")


def _paths(value: object) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _paths(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _paths(item)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _paths(getattr(value, field.name))


def _encode(value: object, root: Path) -> Json:
    """Return `value` as JSON: what JSON has no type for is a list that begins with the type's name."""
    if isinstance(value, Path):
        return ["Path", os.path.relpath(value, root)]
    if is_dataclass(value):
        return [type(value).__name__, *(_encode(getattr(value, field.name), root) for field in fields(value))]
    if isinstance(value, tuple):
        return [type(value).__name__, *(_encode(item, root) for item in value)]
    if isinstance(value, list):
        return ["list", *(_encode(item, root) for item in value)]
    if isinstance(value, dict):
        return {key: _encode(item, root) for key, item in value.items()}
    assert value is None or isinstance(value, bool | int | float | str)
    return value


def _decode(value: Json, root: Path) -> object:
    if isinstance(value, dict):
        return {key: _decode(item, root) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    kind, *items = value
    if kind == "Path":
        return Path(os.path.normpath(root / str(items[0])))
    decoded = [_decode(item, root) for item in items]
    if kind in ("list", "tuple"):
        return decoded if kind == "list" else tuple(decoded)
    return _TYPES[str(kind)](*decoded)

"""Checked manifests, remembered: pydantic and YAML cost more than the rest of a no-op and run when something changed.

An entry belongs to a name or path, a current folder, a home folder and a project. It holds while Python and every
module of the package are what they were, the YAML files have the bytes that were read, all paths of the manifest lead
to files, the checkpoint's to the same ones, and no lock file has come to lie beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path

from sam3_build import registry
from sam3_build.digest import PACKAGE, DigestCache, digest
from sam3_build.errors import BuildError
from sam3_build.folders import make_folder, write_atomically
from sam3_build.manifest import types
from sam3_build.manifest.lock import lock_path
from sam3_build.manifest.paths import expanded
from sam3_build.manifest.samples import clip_files
from sam3_build.manifest.types import Checkpoint, Manifest, Sample
from sam3_build.manifest.weight_files import weight_files
from sam3_build.spec import Json


def load(name_or_path: str, root: Path, digests: DigestCache, folder: Path) -> Manifest:
    """Return the manifest as `load.load` does, from `folder` where it was checked before. ManifestError as there."""
    places = (Path.cwd(), expanded("~"), root)
    entry = folder / f"{digest([name_or_path, *map(str, places)])}.json"
    code = _code(digests)
    known = _recall(entry, code, root, digests)
    if known:
        return known
    from sam3_build.manifest.load import load as check

    manifest = check(name_or_path, root)
    if _code(digests) == code:  # or nobody knows which code it was that judged
        _remember(entry, code, manifest, root)
    return manifest


def _recall(entry: Path, code: str, root: Path, digests: DigestCache) -> Manifest | None:
    try:
        checksum, _, data = entry.read_bytes().partition(b"\n")
        if checksum != _checksum(data):
            return None  # somebody changed it, or it is of an earlier version
        stored = json.loads(data)
        if stored["code"] != code:
            return None
        # The same code wrote this, so it can be read without looking at every part of it.
        manifest = _decode(stored["manifest"], root)
        assert isinstance(manifest, Manifest)
        same = all(digests.file(file.path) == file.sha256 for file in manifest.files)
        same = same and _is_where_it_was(manifest)
        same = same and not _is_newly_locked(manifest)
        same = same and all(map(_has_its_pictures, manifest.samples))
    except (OSError, ValueError, BuildError):
        return None  # there is no entry, or one of a file that is gone or cannot be read any more
    return manifest if same and all(path.is_file() for path in _paths(manifest)) else None


def _is_where_it_was(manifest: Manifest) -> bool:
    """Whether a checkpoint's path, most often a folder, still leads to the same files."""
    checkpoint, own_names = manifest.checkpoint, registry.family(manifest.family).weight_names
    return checkpoint.path is None or weight_files(checkpoint.path, checkpoint.config, own_names) == checkpoint.files


def _has_its_pictures(sample: Sample) -> bool:
    """Whether the first pictures of a clip's folder are still the same ones."""
    return sample.video is None or tuple(clip_files(sample.video, sample.frames)) == sample.pictures


def _is_newly_locked(manifest: Manifest) -> bool:
    """Whether there is a lock file that was not there; one that was is among the files whose bytes are compared."""
    lock = lock_path(manifest.path)
    return os.path.lexists(lock) and all(file.path != lock for file in manifest.files)


def _remember(entry: Path, code: str, manifest: Manifest, root: Path) -> None:
    data = json.dumps({"code": code, "manifest": _encode(manifest, root)}).encode()
    with suppress(OSError):  # it will be checked again; a folder that cannot be written is reported later
        make_folder(entry.parent, entry.parent.parent)
        write_atomically(entry, _checksum(data) + b"\n" + data, durable=False)


def _checksum(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


# ------------------------------------------------------------------ what a check depends on


def _code(digests: DigestCache) -> str:
    """Return the digest of Python's version and of every module of the package: plug-ins take part in a check."""
    modules: Json = {name: digests.file(path) for name, path in _modules(str(PACKAGE), "")}
    return digest({"modules": modules, "python": sys.version})


def _modules(folder: str, prefix: str) -> Iterator[tuple[str, str]]:
    with os.scandir(folder) as entries:
        for found in entries:
            if found.name.startswith((".", "__pycache__")):
                continue  # an editor's, or Python's
            if found.name.endswith(".py"):
                yield prefix + found.name, found.path
            elif found.is_dir():
                yield from _modules(found.path, f"{prefix}{found.name}/")


def _paths(value: object) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    if isinstance(value, Checkpoint):  # whose path may be a folder
        value = (*value.files.values(), value.licence)
    if isinstance(value, Sample):  # whose clip may be one, too
        value = value.files
    for item in _parts(value):
        yield from _paths(item)


# ------------------------------------------------------------------ a manifest as JSON


def _parts(value: object) -> Iterator[object]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, tuple | list):
        yield from value
    elif is_dataclass(value):
        for field in fields(value):
            yield getattr(value, field.name)


def _encode(value: object, root: Path) -> Json:
    """Return `value` as JSON, in order: what JSON has no type for is a list that begins with the type's name.

    A path below the project is kept relative to it, and otherwise as written: `..` after a link leads elsewhere.
    """
    if isinstance(value, Path):
        return ["Path", str(value.relative_to(root) if value.is_relative_to(root) else value)]
    if isinstance(value, Mapping):
        return {key: _encode(item, root) for key, item in value.items()}
    if isinstance(value, tuple | list) or is_dataclass(value):
        return [type(value).__name__, *(_encode(item, root) for item in _parts(value))]
    assert value is None or isinstance(value, bool | int | float | str)
    return value


def _decode(value: Json, root: Path) -> object:
    if isinstance(value, dict):
        return {key: _decode(item, root) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    kind, *items = value
    if kind == "Path":
        return root / str(items[0])
    parts = [_decode(item, root) for item in items]
    if kind in ("list", "tuple"):
        return parts if kind == "list" else tuple(parts)
    return getattr(types, str(kind))(*parts)

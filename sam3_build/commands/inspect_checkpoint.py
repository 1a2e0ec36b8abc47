"""Takes a checkpoint (a file, a folder, the hub's cache); describes what it holds, by component."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build import registry
from sam3_build.errors import BuildError
from sam3_build.manifest.weight_files import main_file, weight_files
from sam3_build.spec import Json
from sam3_build.weights.files import SAFETENSORS_SUFFIX, TORCH_SUFFIXES, WEIGHT_NAMES

if TYPE_CHECKING:
    from sam3_build.families.sam3_image.checkpoint_file import CheckpointTensors

# What can be inspected beside folders.
SUFFIXES = (SAFETENSORS_SUFFIX, ".json", *TORCH_SUFFIXES)

MOST_LISTED = 8


def describe_checkpoint(path: Path) -> dict[str, Json]:
    """Describe a checkpoint. BuildError when it cannot be read, or is that of another model."""
    folder = _snapshot(path)
    weights = main_file(folder)
    try:
        files = weight_files(folder, None)
    except BuildError as error:
        raise BuildError(f"{path}: {error}") from error
    if not weights.is_file():
        raise BuildError(f"{path}: holds none of {', '.join(WEIGHT_NAMES)}")
    if missing := [file.name for file in files.values() if not file.is_file()]:
        raise BuildError(f"{path}: {weights.name} names files that are not there: {', '.join(missing)}")
    family, found = _recognised(weights)
    package = f"sam3_build.families.{family}"
    finite, tensors = import_module(f"{package}.finite"), import_module(f"{package}.tensors")
    owners = {module: c.name for c in registry.family(family).components for module in c.modules}
    groups: dict[str, list[str]] = {}
    for key in found.tensors:
        groups.setdefault(owners.get(key.split(".")[0], "other"), []).append(key)
    unknown: list[Json] = list(found.unknown[:MOST_LISTED])
    special = {key: tensors.count_not_finite(tensor) for key, tensor in found.tensors.items()}
    wrong = [
        finite.describe(key, found.keys[key], found.tensors[key].shape, count)
        for key, count in special.items()
        if count
    ]
    return {
        "file": str(weights),
        "kind": "checkpoint",
        "family": family,
        **found.facts(),
        "files": {file.name: file.stat().st_size for file in files.values()},
        "components": {name: _summary([found.tensors[key] for key in groups[name]]) for name in sorted(groups)},
        "left_out": len(found.left_out),
        "unexpected": len(found.unknown),
        **({"unexpected_names": unknown} if unknown else {}),
        "not_finite": len(wrong),
        **({"not_finite_names": finite.shortened(wrong)} if wrong else {}),
    }


def _recognised(weights: Path) -> tuple[str, CheckpointTensors]:
    """Return the family that knows the names of a checkpoint's tensors, and these; BuildError when none does."""
    refusals: dict[str, str] = {}
    for name in registry.names("families"):
        if (registry.PACKAGE / "families" / name / "checkpoint_file.py").is_file():
            try:
                found: CheckpointTensors = import_module(f"sam3_build.families.{name}.checkpoint_file").read(weights)
                return name, found
            except BuildError as error:
                refusals[name] = str(error)
    if not refusals:
        raise BuildError("no model family here reads checkpoints")
    if len(refusals) == 1:
        raise BuildError(*refusals.values())
    raise BuildError("\n".join(f"{name}: {why}" for name, why in refusals.items()))


def _summary(tensors: list[object]) -> Mapping[str, Json]:
    parameters, size, dtypes = 0, 0, Counter[str]()
    for tensor in tensors:
        shape, width, dtype = (getattr(tensor, name) for name in ("shape", "width", "dtype"))
        parameters += math.prod(shape)
        size += math.prod(shape) * width
        dtypes[dtype] += 1
    return {"tensors": len(tensors), "parameters": parameters, "bytes": size, "dtypes": " ".join(sorted(dtypes))}


def _snapshot(path: Path) -> Path:
    """Return the newest snapshot of a folder of the hub's cache (`models--org--name`); any other path as it is."""
    snapshots = path / "snapshots"
    if not snapshots.is_dir():
        return path
    try:
        return snapshots / (path / "refs" / "main").read_text().strip()
    except OSError:
        return max(snapshots.iterdir(), key=lambda folder: folder.stat().st_mtime, default=path)

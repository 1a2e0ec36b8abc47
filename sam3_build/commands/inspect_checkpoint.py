"""Takes a checkpoint (a file, a folder, the hub's cache); describes what it holds, by component."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from sam3_build import registry
from sam3_build.commands.checkpoint_table import table
from sam3_build.errors import BuildError
from sam3_build.manifest.weight_files import main_file, weight_files
from sam3_build.spec import Json
from sam3_build.weights import finite
from sam3_build.weights.checkpoint_file import read_state_dicts
from sam3_build.weights.files import SAFETENSORS_SUFFIX, TORCH_SUFFIXES, WEIGHT_NAMES
from sam3_build.weights.recognise import recognise
from sam3_build.weights.tensors import FileTensor, count_not_finite

# What can be inspected beside folders.
SUFFIXES = (SAFETENSORS_SUFFIX, ".json", *TORCH_SUFFIXES)

MOST_LISTED = 8


def describe_checkpoint(path: Path) -> dict[str, Json]:
    """Describe a checkpoint. BuildError when it cannot be read, or is that of another model."""
    folder = _snapshot(path)
    own_names = tuple(name for family in registry.names("families") for name in registry.family(family).weight_names)
    weights = main_file(folder, own_names)
    try:
        files = weight_files(folder, None, own_names)
    except BuildError as error:
        raise BuildError(f"{path}: {error}") from error
    if not weights.is_file():
        raise BuildError(f"{path}: holds none of {', '.join((*WEIGHT_NAMES, *own_names))}")
    if missing := [file.name for file in files.values() if not file.is_file()]:
        raise BuildError(f"{path}: {weights.name} names files that are not there: {', '.join(missing)}")
    families = recognise(weights, registry.key_tables())
    family, found = next(iter(families.items()))
    others: list[Json] = [name for name in families if name != family]
    declared = registry.family(family)
    layout = declared.layouts[declared.layout]
    groups: dict[str, list[str]] = {}
    for key in found.tensors:
        owner = layout.owner(key)
        groups.setdefault(owner.name if owner else "other", []).append(key)
    unknown: list[Json] = list(found.unknown[:MOST_LISTED])
    special = {key: count_not_finite(tensor) for key, tensor in found.tensors.items()}
    wrong = [
        finite.describe(key, found.keys[key], found.tensors[key].shape, count)
        for key, count in special.items()
        if count
    ]
    return {
        "file": str(weights),
        "kind": "checkpoint",
        "family": family,
        **({"also_known_to": others} if others else {}),
        **found.facts(),
        "files": {file.name: file.stat().st_size for file in files.values()},
        "components": {name: _summary([found.tensors[key] for key in groups[name]]) for name in sorted(groups)},
        "inventory": table(found, read_state_dicts(weights)[found.state_dict].tensors, declared),
        "left_out": len(found.left_out),
        "unexpected": len(found.unknown),
        **({"unexpected_names": unknown} if unknown else {}),
        "not_finite": len(wrong),
        **({"not_finite_names": finite.shortened(wrong)} if wrong else {}),
    }


def _summary(tensors: list[FileTensor]) -> Mapping[str, Json]:
    return {
        "tensors": len(tensors),
        "parameters": sum(math.prod(tensor.shape) for tensor in tensors),
        "bytes": sum(math.prod(tensor.shape) * tensor.width for tensor in tensors),
        "dtypes": " ".join(sorted({tensor.dtype for tensor in tensors})),
    }


def _snapshot(path: Path) -> Path:
    """Return the newest snapshot of a folder of the hub's cache (`models--org--name`); any other path as it is."""
    snapshots = path / "snapshots"
    if not snapshots.is_dir():
        return path
    try:
        return snapshots / (path / "refs" / "main").read_text().strip()
    except OSError:
        return max(snapshots.iterdir(), key=lambda folder: folder.stat().st_mtime, default=path)

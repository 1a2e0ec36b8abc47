"""The files of the checkpoint at a path, by role. Cheap: asked for on every start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sam3_build.errors import BuildError
from sam3_build.weights.files import ADAPTER_NAMES, INDEX_SUFFIX, WEIGHT_NAMES, adapter_message, shards


def weight_files(path: Path, config: Path | None, own_names: tuple[str, ...]) -> Mapping[str, Path]:
    """Return role -> file: `config`, `weights` and, when that is an index, `shard0`, `shard1`, ... in order of name.

    own_names: what a family's weights are called in a folder, beside the usual names
    `config` is missing when there is none. Whether the files exist is not asked. BuildError says what is wrong with an
    index, or that a folder is that of an adapter; OSError that an index cannot be read.
    """
    if adapter := next((name for name in ADAPTER_NAMES if (path / name).is_file()), None):
        raise BuildError(adapter_message(adapter))
    weights = main_file(path, own_names)
    beside = weights.with_name("config.json")
    chosen = config or (beside if beside.is_file() else None)
    files = {"config": chosen, "weights": weights} if chosen else {"weights": weights}
    if weights.name.endswith(INDEX_SUFFIX):
        files |= {f"shard{n}": weights.with_name(name) for n, name in enumerate(shards(weights))}
    return files


def main_file(path: Path, own_names: tuple[str, ...]) -> Path:
    """Return the file at `path`; of a folder, the first of the usual names that it has, or of a family's own."""
    if not path.is_dir():
        return path
    names = (*WEIGHT_NAMES, *own_names)
    return next((path / name for name in names if (path / name).is_file()), path / names[0])

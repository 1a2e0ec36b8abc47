"""Where a checkpoint is declared to lie in; the files that it consists of out. Cheap: asked for on every start."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

# What a folder's weights are called, the one to prefer first.
USUAL = ("model.safetensors", "model.safetensors.index.json", "sam3.pt")

# What torch.save writes. A bare one of these needs no config beside it: it is taken for the official sam3.pt.
TORCH = (".pt", ".pth", ".bin", ".ckpt")

# What PEFT writes: a few tensors that change a model, which may lie beside them. Neither alone is what was trained.
ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")


def weight_files(path: Path, config: Path | None) -> Mapping[str, Path]:
    """Return role -> file: `config`, `weights` and, when that is an index, `shard0`, `shard1`, ... in order of name.

    `config` is missing when there is none. Whether the files exist is not asked. ValueError says what is wrong with an
    index, or that a folder is that of an adapter; OSError that an index cannot be read.
    """
    if adapter := next((name for name in ADAPTER if (path / name).is_file()), None):
        raise ValueError(not_merged(adapter))
    weights = main_file(path)
    beside = weights.with_name("config.json")
    found = config or (beside if beside.is_file() else None)
    files = {"config": found, "weights": weights} if found else {"weights": weights}
    if weights.name.endswith(".index.json"):
        files |= {f"shard{n}": weights.with_name(name) for n, name in enumerate(_shards(weights))}
    return files


def not_merged(adapter: str) -> str:
    """Say what a folder with this file is and what to do about it."""
    return (
        f"holds an adapter ({adapter}), which is no model yet, and whose base model is not what was trained; merge "
        "them with PEFT, model.merge_and_unload().save_pretrained(...), and name that folder"
    )


def main_file(path: Path) -> Path:
    """Return the file at `path`; of a folder, the first of the usual names that it has."""
    if not path.is_dir():
        return path
    return next((path / name for name in USUAL if (path / name).is_file()), path / USUAL[0])


def _shards(index: Path) -> list[str]:
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{index.name!r} is no index of safetensors files: it has no 'weight_map'") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise ValueError(f"{index.name!r} names {name!r}; all its files must lie beside it")
    return names

"""Names of checkpoint files, and the index of a sharded checkpoint. Standard library only: read on every start."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

from sam3_build.errors import BuildError

SAFETENSORS_SUFFIX = ".safetensors"
INDEX_SUFFIX = ".index.json"

# What torch.save writes.
TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")

# What a folder's weights, or those of a repository at the hub, are called, the one to prefer first; a family may have
# names of its own, which come after these. An index names further files.
INDEX_NAME = "model.safetensors.index.json"
WEIGHT_NAMES = ("model.safetensors", INDEX_NAME)

# What the licence of weights is called, in a folder or a repository.
LICENCE_NAMES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "LICENCE.txt")

# What PEFT writes: a few tensors that change a model, which may lie beside them. Neither alone is what was trained.
ADAPTER_NAMES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")


def name_of(url: str) -> str:
    """Return the name of the file at a URL."""
    return urlsplit(url).path.rpartition("/")[2]


def weight_map(index: Path) -> dict[str, str]:
    """Return tensor key -> file name, as an index of safetensors files has it.

    BuildError when it is not an index, or names a file that does not lie beside it; OSError when it cannot be read.
    """
    content = index.read_bytes()
    try:
        names = {str(key): name for key, name in json.loads(content)["weight_map"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BuildError(f"{index.name!r} is not an index of safetensors files: it has no 'weight_map'") from None
    for name in names.values():
        if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
            raise BuildError(f"{index.name!r} names {name!r}; all its files must lie beside it")
    return names


def shards(index: Path) -> list[str]:
    """Return the names of the files that an index names, sorted. Raises as `weight_map`."""
    return sorted(set(weight_map(index).values()))


def adapter_message(name: str) -> str:
    """Say what a folder that holds the adapter file `name` is, and what to do about it."""
    return (
        f"holds an adapter ({name}), which is no model yet, and whose base model is not what was trained; merge "
        "them with PEFT, model.merge_and_unload().save_pretrained(...), and name that folder"
    )

"""A file that torch.save wrote in; where each tensor of its state dict lies out. Runs no code of the file."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError
from sam3_build.families.sam3_image.stored import Stored

if TYPE_CHECKING:
    from torch import Tensor

# Where a state dict lies when it is not the file's only content.
OUTER = "model"


def read_header(path: Path) -> dict[str, Stored]:
    """Return every tensor of a file, by key: only its table of contents is read, and no memory taken for tensors."""
    import torch

    if not zipfile.is_zipfile(path):
        raise BuildError(
            f"{path.name} is cut short, or not a file that torch.save wrote (PyTorch 1.6 or later); get the file again"
        )
    try:
        # On the meta device, torch notes where a storage lies in the file instead of reading it.
        found = torch.load(path, map_location="meta", weights_only=True)
    except UnpicklingError as error:
        raise BuildError(
            f"{path.name} holds Python objects besides tensors, which could run code when loaded; load it where you "
            "trust it, and save its state dict alone: torch.save(checkpoint['model'], ...)"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise BuildError(f"{path.name} cannot be read: {' '.join(str(error).split())}; get the file again") from error
    tensors = _state_dict(path, found)
    size = path.stat().st_size
    stored = {key: _stored(path, tensor) for key, tensor in tensors.items()}
    for key, tensor in stored.items():
        if tensor.offset + tensor.size > size:
            raise BuildError(f"{path.name} is damaged: {key} lies behind its end; get the file again")
    return stored


def _state_dict(path: Path, found: object) -> dict[str, Tensor]:
    import torch

    inner = found.get(OUTER) if isinstance(found, Mapping) else None
    state = inner if isinstance(inner, Mapping) else found
    if isinstance(state, Mapping) and state and all(isinstance(v, torch.Tensor) for v in state.values()):
        return {str(key): tensor for key, tensor in state.items()}
    what = f"a {type(found).__name__}"
    if isinstance(state, Mapping):
        kinds = [f"{key!r} ({type(value).__name__})" for key, value in state.items()]
        what = f"{', '.join(kinds[:6])}{' and more' if len(kinds) > 6 else ''}" if kinds else "nothing"
    raise BuildError(f"{path.name} should hold a state dict, tensors by name, alone or as {OUTER!r}; it holds {what}")


def _stored(path: Path, tensor: Tensor) -> Stored:
    names = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64", "int64": "I64", "int32": "I32"}
    torch_name = str(tensor.dtype).removeprefix("torch.")
    begin = getattr(tensor.untyped_storage(), "_checkpoint_offset", None)
    assert isinstance(begin, int), "this torch does not say where a storage lies in its file"
    offset = begin + int(tensor.storage_offset()) * tensor.element_size()
    return Stored(path, names.get(torch_name, torch_name), tuple(tensor.shape), offset, tensor.stride())

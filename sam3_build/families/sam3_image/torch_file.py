"""Finds the tensors of each state dict in a file that torch.save wrote. Runs no code of the file."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError, did_you_mean
from sam3_build.families.sam3_image.tensors import FileTensor

if TYPE_CHECKING:
    from torch import Tensor

# What a state dict is called that is the file's only content.
BARE = ""

# Which of several state dicts is meant when nobody says: the trained weights, as most training code calls them.
USUAL_NAMES = (BARE, "model", "state_dict", "model_state_dict")

STATE_DICT = "save a state dict: torch.save(model.state_dict(), 'weights.pt')"

# What PyTorch also writes as a zip file: part of the name of an entry, what it is, and what to do.
OTHER_ARCHIVES = (
    ("/constants.pkl", "TorchScript, code and all", f"where the model was made, {STATE_DICT}"),
    ("/models/model.json", "an exported program of torch.export", f"where the model was made, {STATE_DICT}"),
    ("/.data/extern_modules", "a package of torch.package, code and all", f"where the model was made, {STATE_DICT}"),
)

MOST_LISTED = 12


def read_header(path: Path) -> dict[str, dict[str, FileTensor]]:
    """Return every state dict of a file by its name (`ema`, `ema.module`), in the file's order; a bare one is BARE.

    Only the file's table of contents is read, and no memory taken for tensors. BuildError when it holds none.
    """
    import torch

    _refuse_other_archives(path)
    try:
        # On the meta device, torch notes where a storage lies in the file instead of reading it.
        content = torch.load(path, map_location="meta", weights_only=True)
    except UnpicklingError as error:
        raise BuildError(
            f"{path.name} holds Python objects besides tensors, which could run code when loaded; load it where you "
            "trust it, and save its state dict alone: torch.save(checkpoint['model'], ...)"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        # torch's first sentence says what is wrong, the next ones what it advises: never ours to pass on.
        message = " ".join(str(error).split()).partition(". ")[0]
        reason = f": {message}" if "weights_only" not in message else ""
        raise BuildError(f"{path.name} cannot be read{reason}; get the file again") from error
    size = path.stat().st_size
    stored: dict[str, dict[str, FileTensor]] = {}
    for name, tensors in _state_dicts(path, content).items():
        stored[name] = {key: _stored(path, tensor) for key, tensor in tensors.items()}
        for key, tensor in stored[name].items():
            if tensor.offset + tensor.size > size:
                raise BuildError(f"{path.name} is damaged: {key} lies beyond its end; get the file again")
    return stored


def choose(file: str, names: Collection[str], wanted: str | None) -> str:
    """Return which of a file's state dicts is meant: `wanted`, or what it holds alone, else the usual one.

    BuildError when there is none of that name, or no name is usual.
    """
    listed = ", ".join(map(repr, list(names)[:MOST_LISTED])) + (" and more" if len(names) > MOST_LISTED else "")
    if wanted is not None:
        inside = [name for name in names if name.startswith(f"{wanted}.")]
        if wanted in names or len(inside) == 1:
            return wanted if wanted in names else inside[0]
        if list(names) == [BARE]:
            raise BuildError(f"{file} holds one state dict, which has no name; leave `weights: {wanted}` out")
        nearest = did_you_mean(wanted, names) if len(names) > 1 else ""
        raise BuildError(f"{file} has no state dict {wanted!r}; it holds {listed}{nearest.partition('; known')[0]}")
    usual = [name for name in USUAL_NAMES if name in names]
    if usual or len(names) == 1:
        return (usual or list(names))[0]
    raise BuildError(
        f"{file} holds several state dicts: {listed}; name the one to take in the manifest, "
        f"`checkpoint: {{weights: {next(iter(names))}}}`"
    )


def _refuse_other_archives(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.namelist()
    except zipfile.BadZipFile:
        raise BuildError(
            f"{path.name} is cut short, or not a file that torch.save wrote (PyTorch 1.6 or later); get the file again"
        ) from None
    for part, what, advice in OTHER_ARCHIVES:
        if any(entry.endswith(part) for entry in entries):
            raise BuildError(f"{path.name} is {what}, and no checkpoint; {advice}")
    if not any(entry.endswith("/data.pkl") for entry in entries):
        raise BuildError(f"{path.name} is a zip file, but not one that torch.save wrote; name the checkpoint itself")


def _state_dicts(path: Path, content: object) -> dict[str, Mapping[str, Tensor]]:
    """Return what `read_header` does, as tensors. Looks one mapping deep into what is no state dict itself."""
    if _is_state_dict(content):
        return {BARE: _named(content)}
    dicts: dict[str, Mapping[str, Tensor]] = {}
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if _is_state_dict(value):
            dicts[str(name)] = _named(value)
        elif isinstance(value, Mapping):
            dicts |= {f"{name}.{inner}": _named(held) for inner, held in value.items() if _is_state_dict(held)}
    if dicts:
        return dicts
    inner = content.get("model") if isinstance(content, Mapping) else None
    state = inner if isinstance(inner, Mapping) else content
    what = f"a {type(content).__name__}"
    if isinstance(state, Mapping):
        kinds = [f"{key!r} ({type(value).__name__})" for key, value in state.items()]
        what = f"{', '.join(kinds[:6])}{' and more' if len(kinds) > 6 else ''}" if kinds else "nothing"
    raise BuildError(
        f"{path.name} should hold a state dict, tensors by name, alone or under a name such as 'model'; it holds {what}"
    )


def _is_state_dict(value: object) -> bool:
    import torch

    return isinstance(value, Mapping) and bool(value) and all(isinstance(v, torch.Tensor) for v in value.values())


def _named(value: object) -> dict[str, Tensor]:
    assert isinstance(value, Mapping)
    return {str(key): tensor for key, tensor in value.items()}


def _stored(path: Path, tensor: Tensor) -> FileTensor:
    names = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64", "int64": "I64", "int32": "I32"}
    torch_name = str(tensor.dtype).removeprefix("torch.")
    begin = getattr(tensor.untyped_storage(), "_checkpoint_offset", None)
    assert isinstance(begin, int), "this torch does not say where a storage lies in its file"
    offset = begin + int(tensor.storage_offset()) * tensor.element_size()
    return FileTensor(path, names.get(torch_name, torch_name), tuple(tensor.shape), offset, tensor.stride())

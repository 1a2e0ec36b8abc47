"""Finds the tensors of each state dict in a file that torch.save wrote. Runs no code of the file."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, NoReturn

from sam3_build.errors import BuildError, did_you_mean
from sam3_build.weights.tensors import FileTensor, StateDict

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

# How many mappings deep state dicts are looked for: `{"ema": {"module": ...}}`.
NESTING = 2

MOST_LISTED = 12
# Of entries that are no tensors.
FEW_LISTED = 6


def read_header(path: Path) -> dict[str, StateDict]:
    """Return every state dict of a file by its name (`ema`, `ema.module`), in the file's order; a bare one is BARE.

    Dicts that hold tensors, and more of anything else, are among them: `choose` refuses these by name. Only the file's
    table of contents is read, and no memory taken for tensors. BuildError when no dict holds a tensor.
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
    stored = _state_dicts(path, BARE, content, NESTING)
    for state_dict in stored.values():
        for key, tensor in state_dict.tensors.items():
            if tensor.offset + tensor.size > size:
                raise BuildError(f"{path.name} is damaged: {key} lies beyond its end; get the file again")
    return stored or _refuse(path, content)


def choose(file: str, dicts: Mapping[str, StateDict], wanted: str | None) -> str:
    """Return which of a file's state dicts is meant: `wanted`, or what it holds alone, else the usual one.

    BuildError when there is none of that name, no name is usual, or the one that is meant is hardly tensors: no other
    one is taken in its place.
    """
    names = [name for name, state_dict in dicts.items() if state_dict.is_usable]
    listed = ", ".join(map(repr, names[:MOST_LISTED])) + (" and more" if len(names) > MOST_LISTED else "")
    if wanted is not None:
        inside = [name for name in dicts if name.startswith(f"{wanted}.")]
        if wanted in dicts or len(inside) == 1:
            return _usable(file, dicts, wanted if wanted in dicts else inside[0], listed)
        if names == [BARE]:
            raise BuildError(f"{file} holds one state dict, which has no name; leave `weights: {wanted}` out")
        nearest = did_you_mean(wanted, names) if len(names) > 1 else ""
        raise BuildError(f"{file} has no state dict {wanted!r}; it holds {listed}{nearest.partition('; known')[0]}")
    usual = [name for name in USUAL_NAMES if name in dicts]
    if usual or len(names) <= 1:
        return _usable(file, dicts, (usual or names or list(dicts))[0], listed)
    raise BuildError(
        f"{file} holds several state dicts: {listed}; name the one to take in the manifest, "
        f"`checkpoint: {{weights: {names[0]}}}`"
    )


def _usable(file: str, dicts: Mapping[str, StateDict], name: str, usable: str) -> str:
    """Return the name of the state dict that is meant. BuildError when it is hardly tensors."""
    if dicts[name].is_usable:
        return name
    raise BuildError(
        f"{file}: {repr(name) if name else 'its content'} is no state dict, for most of its entries are no tensors: "
        f"{shortened(dicts[name].other_entries)}; {STATE_DICT}"
        + (f", or name {usable} in the manifest's `weights:`" if usable else "")
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


def _state_dicts(path: Path, name: str, content: object, nesting: int) -> dict[str, StateDict]:
    """Return what `read_header` does of `content`, by names that begin with `name`; of what holds no tensor, nothing.

    What is mostly tensors is a state dict, unless it holds a larger one; else those `nesting` mappings deep are found.
    """
    import torch

    if not isinstance(content, Mapping):
        return {}
    tensors = {str(key): _stored(path, value) for key, value in content.items() if isinstance(value, torch.Tensor)}
    others = {str(key): type(value).__name__ for key, value in content.items() if not isinstance(value, torch.Tensor)}
    found = StateDict(tensors, others)
    inside: dict[str, StateDict] = {}
    for key, value in content.items() if nesting else ():
        inside |= _state_dicts(path, f"{name}.{key}" if name else str(key), value, nesting - 1)
    if inside and not (found.is_usable and all(len(each.tensors) <= len(tensors) for each in inside.values())):
        return inside
    return {name: found} if tensors else {}


def _refuse(path: Path, content: object) -> NoReturn:
    what = f"a {type(content).__name__}"
    if isinstance(content, Mapping):
        what = shortened(f"{key!r} ({type(value).__name__})" for key, value in content.items()) or "nothing"
    raise BuildError(
        f"{path.name} should hold a state dict, tensors by name, alone or under a name such as 'model'; it holds {what}"
    )


def shortened(entries: Iterable[str]) -> str:
    """Return the first of many entries, and that there are more."""
    listed = list(entries)
    more = f" and {len(listed) - FEW_LISTED} more" if len(listed) > FEW_LISTED else ""
    return ", ".join(listed[:FEW_LISTED]) + more


def _stored(path: Path, tensor: Tensor) -> FileTensor:
    names = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64", "int64": "I64", "int32": "I32"}
    torch_name = str(tensor.dtype).removeprefix("torch.")
    begin = getattr(tensor.untyped_storage(), "_checkpoint_offset", None)
    assert isinstance(begin, int), "this torch does not say where a storage lies in its file"
    offset = begin + int(tensor.storage_offset()) * tensor.element_size()
    return FileTensor(path, names.get(torch_name, torch_name), tuple(tensor.shape), offset, tensor.stride())

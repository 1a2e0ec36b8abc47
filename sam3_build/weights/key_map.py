"""Renames a checkpoint's tensors as our modules are named, by a family's tables. Knows no model and reads no file."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sam3_build.family_code import Format, KeyTables, Reshape, Section
from sam3_build.weights.other_models import ADAPTER
from sam3_build.weights.tensors import FileTensor
from sam3_build.weights.wrapped_names import is_computed


@dataclass(frozen=True)
class Renamed:
    """A file's tensors by our modules' names, and its keys that have no such name (in the file's own spelling).

    keys:     our name -> the file's own
    left_out: a key that no module of ours has -> what it is
    """

    format: Format
    tensors: Mapping[str, FileTensor]
    keys: Mapping[str, str]
    left_out: Mapping[str, str]
    unknown: tuple[str, ...]


# What tensors are that no family asks for.
COMPUTED = "tables that every build computes"
OTHER_PART = "no part of this model"


def is_known(name: str, tables: KeyTables) -> bool:
    """Whether any format has tensors of the model under such a name."""
    return any(_holds(form, name) for form in tables.formats)


def others(tables: KeyTables) -> tuple[str, ...]:
    """Return the beginnings of what is no part of the model in any format."""
    return tuple(dict.fromkeys(other for form in tables.formats for other in form.others))


def other_model(keys: Collection[str], tables: KeyTables) -> str | None:
    """Return which other model these keys are known to belong to, or None."""
    known = (*tables.other_models, ADAPTER)
    return next((name for name, pattern in known if any(re.match(pattern, key) for key in keys)), None)


def recognise(keys: Collection[str], tables: KeyTables) -> Format | None:
    """Return the format that most keys follow; None when none follows any."""
    counts = [sum(_holds(form, key) for key in keys) for form in tables.formats]
    best = max(range(len(counts)), key=counts.__getitem__)
    return tables.formats[best] if counts[best] else None


def rename(stored: Mapping[str, FileTensor], form: Format, tied: Mapping[str, str]) -> Renamed:
    """Name the tensors of a file in `form` as our modules do; split joined ones, and share tied ones."""
    tensors: dict[str, FileTensor] = {}
    keys: dict[str, str] = {}
    left_out: dict[str, str] = {}
    unknown: list[str] = []
    for key, tensor in stored.items():
        name = key.removeprefix(form.prefix) if key.startswith(form.prefix) else None
        if what := _left_out(key, name, form):
            left_out[key] = what
            continue
        ours = translate(name, form.sections) if name else None
        parts = _parts(ours, tensor, form) if ours else {}
        if not parts:
            unknown.append(key)
        tensors |= parts
        keys |= dict.fromkeys(parts, key)
    for pair in tied.items():
        for name, other in (pair, pair[::-1]):
            if other in tensors and name not in tensors:
                tensors[name], keys[name] = tensors[other], keys[other]
    return Renamed(form, tensors, keys, left_out, tuple(unknown))


def translate(name: str, sections: tuple[Section, ...] | None) -> str | None:
    """Return our name for a checkpoint's, `*` standing for q, k and v where these are joined; None for no name."""
    if sections is None:
        return name
    for section in sections:
        if name.startswith(section.theirs):
            rest = name.removeprefix(section.theirs)
            for pattern, replacement in section.differences:
                rest = re.sub(pattern, replacement, rest)
            return section.ours + rest
    return None


def _left_out(key: str, name: str | None, form: Format) -> str | None:
    """Return what a tensor is that no module of ours has; None for one that some module should have."""
    if is_computed(key):
        return COMPUTED
    if other := next((other for other in form.others if key.startswith(other)), None):
        return f"{other}*, {OTHER_PART}"
    return next((what for what, pattern in form.left_out if name and re.fullmatch(pattern, name)), None)


def _holds(form: Format, key: str) -> bool:
    return key.startswith(tuple(form.prefix + root for root in form.roots))


def _parts(name: str, tensor: FileTensor, form: Format) -> dict[str, FileTensor]:
    """Return what our modules make of one of a checkpoint's tensors; nothing when it cannot be split."""
    how = form.reshaped.get(name)
    if "*" in name:
        return _split(tensor, 0, [name.replace("*", part) for part in "qkv"])
    return _split(tensor, how.axis, how.parts) if how and how.parts else {name: _reshaped(tensor, how)}


def _split(tensor: FileTensor, axis: int, names: Sequence[str]) -> dict[str, FileTensor]:
    length, rest = divmod(tensor.shape[axis] if tensor.shape else 1, len(names))
    return {} if rest else {part: tensor.narrow(axis, i * length, length) for i, part in enumerate(names)}


def _reshaped(tensor: FileTensor, how: Reshape | None) -> FileTensor:
    if how is None or how.rank not in (None, len(tensor.shape)):
        return tensor
    if how.skip:
        tensor = tensor.narrow(how.axis, how.skip, tensor.shape[how.axis] - how.skip)
    return tensor.transposed() if how.transposed else tensor

"""Takes a checkpoint's tensors; returns the table of its parts: prefix, parameters, component, what becomes of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sam3_build.spec import Json, ModelFamily
from sam3_build.weights import key_map
from sam3_build.weights.checkpoint_file import CheckpointTensors
from sam3_build.weights.tensors import FileTensor

# A prefix under which more names follow is not split: its tensors are summed up by what becomes of them.
MOST_SPLIT = 5


@dataclass(frozen=True)
class Part:
    """What becomes of a tensor: the component that has it, where there is one, and the layouts that export that."""

    component: str
    status: str


def table(found: CheckpointTensors, stored: Mapping[str, FileTensor], family: ModelFamily) -> list[Json]:
    """Return the rows; tables that every build computes are left out. stored: all tensors by the file's own names."""
    parts = {key: part for ours, key in found.keys.items() if (part := _part(ours, family))}
    parts |= {k: Part("-", f"left out: {what}") for k, what in found.left_out.items() if what != key_map.COMPUTED}
    parts |= dict.fromkeys(found.unknown, Part("-", "unknown"))
    return [
        {
            "prefix": prefix,
            "parameters": sum(math.prod(stored[key].shape) for key in keys),
            "component": part.component,
            "status": part.status,
        }
        for prefix, part, keys in _rows("", parts)
    ]


def _part(name: str, family: ModelFamily) -> Part:
    """Return the first layout's component that has a tensor of ours, by its module."""
    for layout_name in (family.layout, *family.layouts):
        if component := family.layouts[layout_name].owner(name):
            is_usual = layout_name == family.layout
            return Part(component.name, "exported" if is_usual else f"exported in layout {layout_name}")
    return Part("-", "loaded by no component")


def _rows(prefix: str, parts: Mapping[str, Part]) -> Iterator[tuple[str, Part, list[str]]]:
    """Yield the longest prefixes whose tensors share one fate, with their keys."""
    fates: dict[Part, list[str]] = {}
    children: dict[str, dict[str, Part]] = {}
    for key, part in parts.items():
        fates.setdefault(part, []).append(key)
        children.setdefault(key[len(prefix) :].partition(".")[0], {})[key] = part
    if prefix and (len(fates) == 1 or len(children) > MOST_SPLIT):
        yield from ((f"{prefix}*", part, keys) for part, keys in fates.items())
        return
    for name, below in children.items():
        if list(below) == [prefix + name]:
            yield prefix + name, below[prefix + name], [prefix + name]
        else:
            yield from _rows(f"{prefix}{name}.", below)

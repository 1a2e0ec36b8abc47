"""Says which family a checkpoint's tensors belong to, by the names that each family knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sam3_build.errors import BuildError
from sam3_build.family_code import KeyTables
from sam3_build.weights import torch_file
from sam3_build.weights.checkpoint_file import CheckpointTensors, by_our_names, read_state_dicts


def recognise(
    path: Path, tables: Mapping[str, KeyTables], state_dict: str | None = None
) -> dict[str, CheckpointTensors]:
    """Return family -> the file's tensors by its names, of those families of whose parts the fewest are missing.

    Of several, such as those that read all of a file and a part of it, that which uses the most tensors, less those
    that it does not know, comes first.
    BuildError when the file cannot be read, or no family knows its names: then what each says.
    """
    dicts = read_state_dicts(path)
    name = torch_file.choose(path.name, dicts, state_dict)
    known: dict[str, CheckpointTensors] = {}
    refusals: dict[str, str] = {}
    for family, own in tables.items():
        try:
            known[family] = by_our_names(path, dicts, name, own)
        except BuildError as error:
            refusals[family] = str(error)
    if not tables:
        raise BuildError("no model family here reads checkpoints")
    if not known:
        one = len(refusals) == 1
        raise BuildError("\n".join(why if one else f"{family}: {why}" for family, why in refusals.items()))
    fewest = min(map(_missing, known.values()))
    found = {family: tensors for family, tensors in known.items() if _missing(tensors) == fewest}
    return dict(sorted(found.items(), key=lambda item: -_used(item[1])))


def other_family(path: Path, family: str, tables: Mapping[str, KeyTables], state_dict: str | None = None) -> str | None:
    """Return why a file that `family` cannot use is another family's, or None when none knows its names better."""
    try:
        found = recognise(path, tables, state_dict)
    except BuildError:
        return None
    best, tensors = next(iter(found.items()))
    own = found.get(family)
    if best == family or (own and _used(own) == _used(tensors)):
        return None
    return (
        f"{path.name} holds the weights of the family {best!r} ({tensors.format.title}), and the manifest's is "
        f"{family!r}; write `family: {best}`, or name a checkpoint of {tables[family].model}"
    )


def _missing(found: CheckpointTensors) -> int:
    """Return how many sections of the format have no tensor."""
    return sum(
        not any(name.startswith(section.ours) for name in found.tensors) for section in found.format.sections or ()
    )


def _used(found: CheckpointTensors) -> int:
    return len(found.tensors) - len(found.unknown)

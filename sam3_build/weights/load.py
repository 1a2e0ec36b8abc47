"""Reads or draws the tensors of one network, and holds them against what the checkpoint action listed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError
from sam3_build.family_code import FamilyCode, KeyTables
from sam3_build.spec import Json
from sam3_build.weights import checkpoint_file, finite, random_weights, wanted
from sam3_build.weights.checkpoint_file import CheckpointTensors
from sam3_build.weights.tensors import DTYPES, FileTensor, inventory_line, read_tensor

if TYPE_CHECKING:
    from torch import Tensor

MOST_LISTED = 8


def load(
    code: FamilyCode,
    network: str,
    source: Mapping[str, Json],
    config: Mapping[str, Json],
    weights: Path | None,
    listed: Mapping[str, Mapping[str, Json]],
) -> dict[str, Tensor]:
    """Return the tensors of `network` as FP32, by name; nothing else is read or drawn.

    `listed` is its component's inventory, which stands for these tensors in every key: BuildError when they differ, or
    are not finite. Of a file with several state dicts it shows which one was taken, so that no key needs its name.
    """
    model = code.modules.skeleton(network, config)
    if wrong := finite.in_inventory(listed, {}):
        raise BuildError(f"{network}: {finite.refusal(wrong)}")
    if weights is None:
        seed = random_weights.seed_of(source)
        recipes = random_weights.recipes(model, code.keys)
        _refuse_changed(listed, {recipe.key: random_weights.entry(recipe, seed) for recipe in recipes}, f"seed {seed}")
        return {recipe.key: recipe.draw(seed) for recipe in recipes}
    checkpoint = _listed_in(weights, listed, code.keys)
    wanted.refuse(wanted.mismatches(model, checkpoint), weights, checkpoint, code.keys.whole)
    read = {key: read_tensor(checkpoint.tensors[key]) for key in wanted.weights_of(model)}
    _refuse_changed(listed, {key: line for key, (_, line) in read.items()}, weights.name)
    return {key: tensor for key, (tensor, _) in read.items()}


def _listed_in(weights: Path, listed: Mapping[str, Mapping[str, Json]], tables: KeyTables) -> CheckpointTensors:
    """Return the state dict of the file that holds exactly the listed tensors; the usual one where none does."""
    candidates = list(checkpoint_file.read_each(weights, tables))
    if len(candidates) != 1:
        for each in candidates:
            if all(_is_line(each.tensors.get(key), line) for key, line in listed.items()):
                return each
        return checkpoint_file.read(weights, tables)
    return candidates[0]


def _is_line(tensor: FileTensor | None, line: Mapping[str, Json]) -> bool:
    """Whether a tensor is that of an inventory's line. Reads its bytes only where type and shape are right."""
    alike = tensor and DTYPES.get(tensor.dtype) == line["dtype"] and list(tensor.shape) == line["shape"]
    return bool(alike and tensor and inventory_line(tensor) == line)


def _refuse_changed(
    listed: Mapping[str, Mapping[str, Json]], actual: Mapping[str, Mapping[str, Json]], origin: str
) -> None:
    """Refuse tensors that are not those of the inventory: a file that was swapped after it was listed."""
    differing = sorted(key for key in listed.keys() | actual.keys() if listed.get(key) != actual.get(key))
    if differing:
        more = f" and {len(differing) - MOST_LISTED} more" if len(differing) > MOST_LISTED else ""
        raise BuildError(
            f"{origin} changed after the checkpoint action listed its tensors: {', '.join(differing[:MOST_LISTED])}"
            f"{more}; run the build again"
        )

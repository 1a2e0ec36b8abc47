"""The weights of this family: an inventory of every tensor without its bytes, and a component's tensors themselves.

Sources: `{"random": {"seed": 0}}`, or `{"path": true}` with a file that `checkpoint_file` can read, and `"weights"`,
the name of a state dict, where the file holds several.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError
from sam3_build.families.sam3_image import checkpoint_file, finite, random_weights
from sam3_build.families.sam3_image.checkpoint_file import CheckpointTensors
from sam3_build.families.sam3_image.config import image_config, refuse_misspelt
from sam3_build.families.sam3_image.family import FAMILY
from sam3_build.families.sam3_image.forward import sam3_config, skeleton
from sam3_build.families.sam3_image.modules import modeling
from sam3_build.families.sam3_image.tensors import DTYPES, FileTensor, inventory_line, read_tensor
from sam3_build.spec import USUAL_LAYOUT, Json

if TYPE_CHECKING:
    from torch import Tensor, nn

# The config of the official sam3.pt, which comes without one: all that transformers has as its default.
OFFICIAL_CONFIG: Mapping[str, Json] = {"model_type": "sam3"}

# Of each kind of problem: one wrong prefix makes hundreds.
MOST_LISTED = 8


def complete_config(config: Mapping[str, Json]) -> dict[str, Json]:
    """Return the config with all that transformers would fill in, so that no default is relied on unseen.

    BuildError when it is no config of a SAM 3 model.
    """
    config = image_config(config)
    try:
        parsed = sam3_config(config)
        complete: dict[str, Json] = parsed.to_dict()
        refuse_misspelt(config, parsed)
        FAMILY.static_dims(complete)
        whole_model(config)
    except BuildError:
        raise
    except Exception as error:  # whatever transformers and torch raise for a type or a size that cannot be
        why = " ".join(str(error).split())
        raise BuildError(
            f"model config: no Sam3Model can be made of {_bad_key(config)}: {type(error).__name__}: {why}"
        ) from error
    return complete


def _bad_key(config: Mapping[str, Json]) -> str:
    """Return the key of the config that transformers refuses also when all others have their defaults, else `it`."""
    for key, value in config.items():
        try:
            whole_model({"model_type": "sam3", key: value})
        except Exception:
            return key
    return "it"


def inventory(
    source: Mapping[str, Json],
    config: Mapping[str, Json],
    weights: Path | None,
    layout: str = USUAL_LAYOUT,
) -> dict[str, dict[str, Json]]:
    """Return component -> checkpoint key -> `{"dtype", "shape", "digest"}` for exactly the tensors that outputs need.

    The digest is that of the tensor's bytes; with random weights, of all that determines them. A tensor that is not
    finite also has the numbers of its elements that are `nan` and `inf`.
    """
    components = FAMILY.laid_out(layout).components
    skeletons = {c.name: skeleton(c.network(next(iter(FAMILY.references))), config) for c in components}
    if weights is None:
        seed = _seed(source)
        return {
            name: {recipe.key: random_weights.entry(recipe, seed) for recipe in random_weights.recipes(model)}
            for name, model in skeletons.items()
        }
    checkpoint = checkpoint_file.read(weights, _state_dict(source))
    problems = [problem for model in skeletons.values() for problem in _mismatches(model, checkpoint)]
    _refuse_mismatches(problems + _unexpected(checkpoint, whole_model(config)), weights, checkpoint)
    return {
        name: {key: inventory_line(checkpoint.tensors[key]) for key in model.state_dict()}
        for name, model in skeletons.items()
    }


def refused(
    source: Mapping[str, Json], weights: Path | None, inventory: Mapping[str, Mapping[str, Mapping[str, Json]]]
) -> dict[str, str]:
    """Return component -> why nothing is exported from it: which tensors of its inventory are not finite."""
    if weights is None or not any(finite.in_inventory(lines, {}) for lines in inventory.values()):
        return {}
    keys = checkpoint_file.read(weights, _state_dict(source)).keys
    found = {name: finite.in_inventory(lines, keys) for name, lines in inventory.items()}
    return {name: _not_finite(lines) for name, lines in found.items() if lines}


def _not_finite(wrong: list[str]) -> str:
    what = f"{len(wrong)} tensors are" if len(wrong) > 1 else "a tensor is"
    return (
        f"{what} not finite, and nothing is exported from that; take a checkpoint from before training went wrong, or "
        "leave the component out:\n  " + "\n  ".join(finite.shortened(wrong))
    )


def describe(source: Mapping[str, Json], weights: Path | None) -> dict[str, Json]:
    """Return how a checkpoint was understood, and log it: its format, and of the file what was taken, and taken off."""
    if weights is None:
        return {}
    checkpoint = checkpoint_file.read(weights, _state_dict(source))
    checkpoint.log(weights.name)
    return checkpoint.facts()


def load(
    network: str,
    source: Mapping[str, Json],
    config: Mapping[str, Json],
    weights: Path | None,
    listed: Mapping[str, Mapping[str, Json]],
) -> dict[str, Tensor]:
    """Return the tensors of `network` as FP32, by checkpoint key; nothing else is read or drawn.

    `listed` is its component's inventory, which stands for these tensors in every key: BuildError when they differ, or
    are not finite. Of a file with several state dicts it shows which one was taken, so that no key needs its name.
    """
    model = skeleton(network, config)
    if wrong := finite.in_inventory(listed, {}):
        raise BuildError(f"{network}: {_not_finite(wrong)}")
    if weights is None:
        seed = _seed(source)
        recipes = random_weights.recipes(model)
        _refuse_changed(listed, {recipe.key: random_weights.entry(recipe, seed) for recipe in recipes}, f"seed {seed}")
        return {recipe.key: recipe.draw(seed) for recipe in recipes}
    checkpoint = _listed_in(weights, listed)
    _refuse_mismatches(_mismatches(model, checkpoint), weights, checkpoint)
    read = {key: read_tensor(checkpoint.tensors[key]) for key in model.state_dict()}
    _refuse_changed(listed, {key: line for key, (_, line) in read.items()}, weights.name)
    return {key: tensor for key, (tensor, _) in read.items()}


def _listed_in(weights: Path, listed: Mapping[str, Mapping[str, Json]]) -> CheckpointTensors:
    """Return the state dict of the file that holds exactly the listed tensors; the usual one where none does."""
    candidates = list(checkpoint_file.read_each(weights))
    if len(candidates) != 1:
        for each in candidates:
            if all(_is_line(each.tensors.get(key), line) for key, line in listed.items()):
                return each
        return checkpoint_file.read(weights)
    return candidates[0]


def _is_line(tensor: FileTensor | None, line: Mapping[str, Json]) -> bool:
    """Whether a tensor is that of an inventory's line. Reads its bytes only where type and shape are right."""
    alike = tensor and DTYPES.get(tensor.dtype) == line["dtype"] and list(tensor.shape) == line["shape"]
    return bool(alike and tensor and inventory_line(tensor) == line)


def whole_model(config: Mapping[str, Json]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all of Sam3Model. What no component needs (see forward.py, decoder.py) may be in a file."""
    import torch

    with torch.device("meta"):
        model = modeling().Sam3Model(sam3_config(config))
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def _state_dict(source: Mapping[str, Json]) -> str | None:
    name = source.get("weights")
    assert name is None or isinstance(name, str)
    return name


def _seed(source: Mapping[str, Json]) -> int:
    random = source.get("random")
    seed = random.get("seed") if isinstance(random, Mapping) else None
    if not isinstance(seed, int):
        raise BuildError(f"random weights need a seed, an integer, but the source is {json.dumps(source)}")
    return seed


def _mismatches(model: nn.Module, file: CheckpointTensors) -> list[str]:
    problems = []
    for key, tensor in model.state_dict().items():
        shape, actual = tuple(tensor.shape), file.tensors.get(key)
        if actual is None:
            problems.append(f"missing: {key} {list(shape)}")
            continue
        origin = "" if file.keys[key] == key else f" (of {file.keys[key]})"
        if actual.shape != shape:
            problems.append(f"shape: {key}{origin} is {list(actual.shape)}, the config asks for {list(shape)}")
        elif actual.dtype not in DTYPES:
            problems.append(f"type: {key}{origin} is {actual.dtype}; allowed: {', '.join(DTYPES)}")
    return problems


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


def _unexpected(file: CheckpointTensors, known: Collection[str]) -> list[str]:
    unknown = {*file.unknown, *(file.keys[key] for key in file.tensors if key not in known)}
    return [f"unexpected: {key}" for key in sorted(unknown)]


def _refuse_mismatches(problems: list[str], weights: Path, file: CheckpointTensors) -> None:
    lines: list[str] = []
    for kind in dict.fromkeys(problem.split(":")[0] for problem in problems):
        same = [problem for problem in problems if problem.startswith(f"{kind}:")]
        more = [f"{kind}: {len(same) - MOST_LISTED} more"] if len(same) > MOST_LISTED else []
        lines += [*same[:MOST_LISTED], *more]
    if lines:
        what = "does not hold the weights of transformers' Sam3Model for this config"
        raise BuildError(f"{weights.name} ({file.format.title}) {what}:\n  " + "\n  ".join(lines))

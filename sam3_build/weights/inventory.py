"""Lists every tensor of a layout's components, with the digest of its bytes and without the bytes.

Sources: `{"random": {"seed": 0}}`, or `{"path": true}` with a file that `checkpoint_file` can read, and `"weights"`,
the name of a state dict, where the file holds several.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from sam3_build.family_code import FamilyCode
from sam3_build.spec import Json, ModelFamily
from sam3_build.weights import checkpoint_file, finite, random_weights, wanted
from sam3_build.weights.tensors import inventory_line


def inventory(
    code: FamilyCode,
    source: Mapping[str, Json],
    config: Mapping[str, Json],
    weights: Path | None,
    layout: str | None = None,
) -> dict[str, dict[str, dict[str, Json]]]:
    """Return component -> tensor's name -> `{"dtype", "shape", "digest"}` for exactly the tensors that outputs need.

    The digest is that of the tensor's bytes; with random weights, of all that determines them. A tensor that is not
    finite also has the numbers of its elements that are `nan` and `inf`. BuildError when a file is that of another
    model, or lacks tensors, or has others. layout: the family's usual one without
    """
    family = code.family
    reference = next(iter(family.references))
    components = family.laid_out(layout or family.layout).components
    skeletons = {c.name: code.modules.skeleton(c.network(reference), config) for c in components}
    if weights is None:
        seed = random_weights.seed_of(source)
        return {
            name: {
                recipe.key: random_weights.entry(recipe, seed) for recipe in random_weights.recipes(model, code.keys)
            }
            for name, model in skeletons.items()
        }
    checkpoint = checkpoint_file.read(weights, code.keys, state_dict_of(source))
    problems = [problem for model in skeletons.values() for problem in wanted.mismatches(model, checkpoint)]
    problems += wanted.unexpected(checkpoint, code.modules.whole_model(config))
    wanted.refuse(problems, weights, checkpoint, code.keys.whole)
    return {
        name: {key: inventory_line(checkpoint.tensors[key]) for key in wanted.weights_of(model)}
        for name, model in skeletons.items()
    }


def refused(
    code: FamilyCode,
    source: Mapping[str, Json],
    weights: Path | None,
    listed: Mapping[str, Mapping[str, Mapping[str, Json]]],
) -> dict[str, str]:
    """Return component -> why nothing is exported from it: which tensors of its inventory are not finite."""
    if weights is None or not any(finite.in_inventory(lines, {}) for lines in listed.values()):
        return {}
    keys = checkpoint_file.read(weights, code.keys, state_dict_of(source)).keys
    found = {name: finite.in_inventory(lines, keys) for name, lines in listed.items()}
    return {name: finite.refusal(lines) for name, lines in found.items() if lines}


def shapes(code: FamilyCode, source: Mapping[str, Json], weights: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a file's tensors by our modules' names."""
    tensors = checkpoint_file.read(weights, code.keys, state_dict_of(source)).tensors
    return {name: tensor.shape for name, tensor in tensors.items()}


def describe(
    code: FamilyCode, source: Mapping[str, Json], weights: Path | None, layout: str | None = None
) -> dict[str, Json]:
    """Return how a checkpoint was understood, and log it: its format, and of the file what was taken, and taken off.

    layout: the family's usual one without; what other ones alone have is left out, too
    """
    if weights is None:
        return {}
    checkpoint = checkpoint_file.read(weights, code.keys, state_dict_of(source))
    checkpoint.log(weights.name)
    elsewhere = _elsewhere(code.family, layout or code.family.layout, checkpoint.tensors)
    for name, count in elsewhere.items():
        logging.getLogger(__name__).info("%s: left out %d tensors that layout %s has", weights.name, count, name)
    return checkpoint.facts() | ({"other_layouts": elsewhere} if elsewhere else {})


def _elsewhere(family: ModelFamily, layout: str, tensors: Iterable[str]) -> dict[str, Json]:
    """Return layout -> of how many tensors it has a component that this layout lacks; the first layout that has it."""
    left = [name for name in tensors if family.layouts[layout].owner(name) is None]
    owners = (next((n for n, other in family.layouts.items() if other.owner(name)), None) for name in left)
    return dict(Counter(owner for owner in owners if owner))


def state_dict_of(source: Mapping[str, Json]) -> str | None:
    """Return the name of the state dict that a source asks for."""
    name = source.get("weights")
    assert name is None or isinstance(name, str)
    return name

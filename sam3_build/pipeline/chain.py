"""The chain: takes a case's arrays and what each component computes, returns each one's inputs and all outputs.

The one place that knows how the files of a layout follow each other: references are recorded along it, targets are
judged along it, and whoever runs a model runs it along it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from sam3_build.pipeline.cases import OUTPUTS, array_in
from sam3_build.spec import ComponentSpec, Feed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Arrays = Mapping[str, Array]

# The component whose outputs are what a case gives: pictures, words and boxes as arrays.
GIVEN = "samples"

# (component or GIVEN, tensor) -> the array, or None where that component does not run in the case.
Find = Callable[[str, str], "Array | None"]

# What runs a component: inputs by name in, outputs by name out.
Network = Callable[["Arrays"], "Arrays"]


def run(
    components: Sequence[ComponentSpec], feeds: Sequence[Feed], networks: Mapping[str, Network], given: Arrays
) -> dict[str, Arrays]:
    """Return component -> outputs by name of one case; a component that the case lacks an input of does not run.

    components, feeds: a family's, in its layout
    given:             the inputs that no component computes
    """
    known: dict[str, Arrays] = {GIVEN: given}
    for spec in components:
        inputs = gather(
            [tensor.name for tensor in spec.inputs],
            [feed for feed in feeds if feed.component == spec.name],
            lambda component, tensor: known.get(component, {}).get(tensor),
        )
        if inputs is not None:
            known[spec.name] = networks[spec.name](inputs)
    return {name: outputs for name, outputs in known.items() if name != GIVEN}


def gather(
    names: Sequence[str], feeds: Sequence[Feed], find: Find, absent: Arrays = MappingProxyType({})
) -> dict[str, Array] | None:
    """Return the inputs `names` of one component in one case, or None when the case lacks one.

    feeds:  those of this component. A fed input is the join of its sources, without those that did not run; every other
            input is given
    absent: stands for what a case does not have
    """
    import numpy as np

    by_input = {feed.input: feed for feed in feeds}
    gathered: dict[str, Array] = {}
    for name in names:
        feed = by_input.get(name)
        sources = feed.sources if feed else ((GIVEN, name),)
        parts = [array for source in sources if (array := find(*source)) is not None]
        if not parts and name in absent:
            parts = [absent[name]]
        if not parts:
            return None
        gathered[name] = np.concatenate(parts, axis=feed.axis) if feed and len(parts) > 1 else parts[0]
    return gathered


def in_files(folders: Mapping[str, Path], file: str) -> Find:
    """Return what looks for arrays in the `.npz` called `file`, of the folder of GIVEN or of a component.

    A component's folder holds its recorded outputs (`outputs/<name>`, beside its inputs) or computed ones (`<name>`).
    """

    def find(component: str, tensor: str) -> Array | None:
        return array_in(folders[component] / file, f"{OUTPUTS}{tensor}", tensor)

    return find

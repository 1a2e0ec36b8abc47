"""The chain: takes a case's arrays and what each step computes, returns each one's inputs and all outputs.

The one place that knows how the steps of a pipeline follow each other: references are recorded along it, targets are
judged along it, and whoever runs a model runs it along it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from sam3_build.model_format import ModelComponent
from sam3_build.pipeline.cases import OUTPUTS, array_in
from sam3_build.spec import ComponentSpec, Feed, Step

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Arrays = Mapping[str, Array]

# The step whose outputs are what a case gives: pictures and prompts as arrays.
GIVEN = "samples"

# (step or GIVEN, tensor) -> the array, or None where that step does not run in the case.
Find = Callable[[str, str], "Array | None"]

# What runs a component: inputs by name in, outputs by name out.
Network = Callable[["Arrays"], "Arrays"]


def run(
    components: Mapping[str, ComponentSpec | ModelComponent],
    steps: Sequence[Step],
    networks: Mapping[str, Network],
    given: Arrays,
    computed: Mapping[str, Arrays] = MappingProxyType({}),
) -> dict[str, Arrays]:
    """Return step -> outputs by name of one case; a step that the case lacks an input of does not run.

    components: by name, a family's in its layout
    steps:      of one of its pipelines
    given:      the inputs that no component computes
    computed:   step -> outputs of steps that ran before, on the same picture; they do not run again
    """
    known: dict[str, Arrays] = {GIVEN: given, **computed}
    for step in steps:
        if step.name in known:
            continue
        inputs = gather(
            [tensor.name for tensor in components[step.component].inputs],
            step.feeds,
            lambda name, tensor: known.get(name, {}).get(tensor),
        )
        if inputs is not None:
            known[step.name] = networks[step.component](inputs)
    return {name: outputs for name, outputs in known.items() if name != GIVEN}


def gather(
    names: Sequence[str], feeds: Sequence[Feed], find: Find, absent: Arrays = MappingProxyType({})
) -> dict[str, Array] | None:
    """Return the inputs `names` of one step in one case, or None when the case lacks one.

    feeds:  those of this step. A fed input is the join of its sources, without those that did not run; every other
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


def in_files(folders: Mapping[str, Path], *files: str) -> Find:
    """Return what looks for arrays in the first of `<file>.npz` that is there, of the folder of GIVEN or of a step.

    A step's folder holds its recorded outputs (`outputs/<name>`, beside its inputs) or computed ones (`<name>`).
    """

    def find(step: str, tensor: str) -> Array | None:
        in_each = (array_in(folders[step] / f"{file}.npz", f"{OUTPUTS}{tensor}", tensor) for file in files)
        return next((array for array in in_each if array is not None), None)

    return find

"""Which tensors a network takes, by its modules on the meta device, and what a checkpoint lacks of them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError
from sam3_build.weights.checkpoint_file import CheckpointTensors
from sam3_build.weights.tensors import DTYPES

if TYPE_CHECKING:
    from torch import Tensor, nn

# How many batches a BatchNorm saw in training: a number beside its weights, of which evaluation takes no notice.
COUNTER = "num_batches_tracked"

# Of each kind of problem: one wrong prefix makes hundreds.
MOST_LISTED = 8


def weights_of(skeleton: nn.Module) -> dict[str, Tensor]:
    """Return every tensor of a network that must be loaded, by name: parameters and persistent buffers."""
    return {name: tensor for name, tensor in skeleton.state_dict().items() if not is_counter(name)}


def is_counter(name: str) -> bool:
    """Whether a tensor of this name counts training's batches, and is no weight."""
    return name.rpartition(".")[2] == COUNTER


def mismatches(skeleton: nn.Module, file: CheckpointTensors) -> list[str]:
    """Return which of a network's tensors a file lacks, or has in another shape or in a type that holds no weights."""
    problems = []
    for key, tensor in weights_of(skeleton).items():
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


def unexpected(file: CheckpointTensors, known: Collection[str]) -> list[str]:
    """Return which tensors of a file are none of those that the whole model knows."""
    unknown = {*file.unknown, *(file.keys[key] for key in file.tensors if key not in known)}
    return [f"unexpected: {key}" for key in sorted(unknown)]


def refuse(problems: list[str], weights: Path, file: CheckpointTensors, whole: str) -> None:
    """Raise a BuildError of `problems`, if there are any, some of each kind. whole: what should be in the file."""
    lines: list[str] = []
    for kind in dict.fromkeys(problem.split(":")[0] for problem in problems):
        same = [problem for problem in problems if problem.startswith(f"{kind}:")]
        more = [f"{kind}: {len(same) - MOST_LISTED} more"] if len(same) > MOST_LISTED else []
        lines += [*same[:MOST_LISTED], *more]
    if lines:
        what = f"does not hold the weights of {whole} for this config"
        raise BuildError(f"{weights.name} ({file.format.title}) {what}:\n  " + "\n  ".join(lines))

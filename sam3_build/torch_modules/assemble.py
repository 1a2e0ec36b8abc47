"""Gives a network's skeleton its weights, and runs it on arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from sam3_build.errors import BuildError
from sam3_build.family_code import Networks
from sam3_build.spec import Json
from sam3_build.weights.wanted import is_counter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    Array = NDArray[np.generic]

Value = TypeVar("Value")


def assemble(modules: Networks, network: str, config: Mapping[str, Json], tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return `network` in evaluation mode with exactly these `tensors` as its weights, not copied.

    Nothing else is allocated: the modules are built on torch's meta device and take the tensors as they are.
    """
    import torch

    model = modules.skeleton(network, config)
    counters = {k: torch.zeros(t.shape, dtype=t.dtype) for k, t in model.state_dict().items() if is_counter(k)}
    model.load_state_dict({**counters, **tensors}, strict=True, assign=True)
    modules.compute_tables(model)
    if left := [name for name, buffer in model.named_buffers() if buffer.is_meta]:
        raise BuildError(f"{network}: compute_tables of its family does not compute {', '.join(left)}")
    return model.eval().requires_grad_(requires_grad=False)


def compute(model: nn.Module, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
    """Return what a network computes, its outputs by name. inputs: by the names that the family declares."""
    import torch

    with torch.no_grad():
        computed = model(**arguments({name: torch.from_numpy(array) for name, array in inputs.items()}))
    if not isinstance(computed, tuple | list) or len(computed) != len(outputs):
        given = f"{len(computed)} outputs" if isinstance(computed, tuple | list) else type(computed).__name__
        raise BuildError(
            f"the network gives {given}, and its family declares the outputs {', '.join(outputs)}, in order"
        )
    return {name: tensor.numpy() for name, tensor in zip(outputs, computed, strict=True)}


def arguments(values: Mapping[str, Value]) -> dict[str, Value]:
    """Return the values by the arguments that take them: an input's name with `_` for each dot.

    Published networks have inputs such as `image_embeddings.0`, which is no argument of any function in Python.
    """
    named = {name.replace(".", "_"): value for name, value in values.items()}
    if len(named) < len(values):
        raise BuildError(f"two of the inputs {', '.join(values)} are one argument of the network; rename one")
    return named

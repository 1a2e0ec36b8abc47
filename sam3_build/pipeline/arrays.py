"""Arrays and what a network takes: says why the ones do not suit the other, before a library says it in its own way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sam3_build.errors import did_you_mean
from sam3_build.spec import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def unsuitable(inputs: Mapping[str, TensorSpec], arrays: Mapping[str, NDArray[np.generic]]) -> str | None:
    """Say which of `arrays` is missing, of another dtype or rank, or not of the fixed size; None when all suit.

    Nothing is cast or renamed. A dim that is a symbol takes any size.
    """
    if unknown := [name for name in arrays if name not in inputs]:
        return f"there is no input {unknown[0]!r}{did_you_mean(unknown[0], inputs)}"
    if missing := [name for name in inputs if name not in arrays]:
        return f"input {', '.join(map(repr, missing))} is missing; the model takes {', '.join(inputs)}"
    for name, array in arrays.items():
        dims = inputs[name].dims
        fixed = all(size == dim for size, dim in zip(array.shape, dims, strict=False) if isinstance(dim, int))
        if array.dtype.name != inputs[name].dtype or array.ndim != len(dims) or not fixed:
            shown = ", ".join(str(dim) if dim != "" else "any" for dim in dims)
            return (
                f"input {name!r} is {array.dtype.name}{list(array.shape)}, the model takes "
                f"{inputs[name].dtype}[{shown}]"
            )
    return None

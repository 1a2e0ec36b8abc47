"""Casts FP32 constants to a lower floating type, and counts the values that it cannot hold. Reads no graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]

_BLOCK = 1 << 22


def cast(array: Array, dtype: np.dtype[np.generic]) -> Array:
    """Return `array` rounded to `dtype`; finite values beyond its range become its largest finite value.

    Infinities and NaN stay what they are. Works in blocks, so that only the result is allocated.
    """
    import numpy as np

    limit = _limit(dtype)
    result = np.empty(array.shape, dtype)
    for target, block in zip(_blocks(result), _blocks(array), strict=True):
        with np.errstate(under="ignore"):
            target[:] = np.where(np.isinf(block), block, np.clip(block, -limit, limit))
    return result


def losses(array: Array, dtype: np.dtype[np.generic]) -> tuple[int, int]:
    """Return how many values of `array` `dtype` clamps, and how many it flushes to zero."""
    import numpy as np

    limit = _limit(dtype)
    clamped = flushed = 0
    for block in _blocks(array):
        magnitude = np.abs(block)
        clamped += int(np.count_nonzero((magnitude > limit) & ~np.isinf(block)))
        small = magnitude[(magnitude > 0) & (magnitude < 1e-4)]
        with np.errstate(under="ignore"):
            flushed += int(np.count_nonzero(small.astype(dtype) == 0))
    return clamped, flushed


def _limit(dtype: np.dtype[np.generic]) -> np.float32:
    import ml_dtypes
    import numpy as np

    return np.float32(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]


def _blocks(array: Array) -> Iterator[Array]:
    flat = array.reshape(-1)
    return (flat[start : start + _BLOCK] for start in range(0, flat.size, _BLOCK))

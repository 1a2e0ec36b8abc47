"""Intersection over union of masks and of boxes, each of one side with each of the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Masks = NDArray[np.bool_]

# Pixels per step of an intersection: 200 masks of so many are 200 MB as float32.
CHUNK = 1 << 18


def mask_ious(expected: Masks, actual: Masks) -> Floats:
    """Return [n, m]: the IoU of each of n masks with each of m, all [height, width]; 0 where both are empty."""
    import numpy as np

    pixels = expected.shape[1] * expected.shape[2]
    a, b = (masks.reshape(len(masks), pixels) for masks in (expected, actual))
    both: Floats = np.zeros((len(a), len(b)))
    for start in range(0, a.shape[1], CHUNK):
        step = slice(start, start + CHUNK)
        both += a[:, step].astype(np.float32) @ b[:, step].astype(np.float32).T  # whole numbers below 2^24: exact
    either: Floats = a.sum(1)[:, None] + b.sum(1)[None] - both
    ious: Floats = both / np.maximum(either, 1)
    return ious


def box_ious(expected: NDArray[np.float32], actual: NDArray[np.float32]) -> Floats:
    """Return [n, m]: the IoU of each box of [n, 4] with each of [m, 4]; 1 for equal ones, even without area."""
    import numpy as np

    a, b = (boxes.astype(np.float64) for boxes in (expected, actual))
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = (high - low).clip(0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1) for boxes in (a, b)]
    either = areas[0][:, None] + areas[1][None] - both
    equal = (a[:, None] == b[None]).all(2)
    return np.where(equal, 1.0, both / np.where(either > 0, either, 1))

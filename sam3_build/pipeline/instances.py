"""What a family finds in one picture, and what users of a model get: numpy arrays, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Instances:
    """The instances of one picture, in the order of the model's queries where it has any.

    scores:   [n] float32, 0 to 1
    boxes:    [n, 4] float32, left, top, right, bottom in pixels, clipped to the picture
    masks:    [n, height, width] bool
    queries:  [n] int64, which query of the model each instance is; None of a model without queries
    presence: 0 to 1, whether anything asked for is there at all; None of a model that does not say
    logits:   [n, h, w] float32, see `masks.Masks`; None of a model that takes no earlier mask
    """

    scores: NDArray[np.float32]
    boxes: NDArray[np.float32]
    masks: NDArray[np.bool_]
    queries: NDArray[np.int64] | None = None
    presence: float | None = None
    logits: NDArray[np.float32] | None = None

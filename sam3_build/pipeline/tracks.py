"""What a family follows through the frames of a video: numpy arrays, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Tracks:
    """The objects of one clip.

    ids:     [n] int64, what the prompts call the objects; no two are alike
    masks:   [frames, n, height, width] bool; what they hold where an object is not visible counts for nothing
    visible: [frames, n] bool, whether the object is in the frame
    scores:  [frames, n] float32, 0 to 1; None of a model that gives none
    """

    ids: NDArray[np.int64]
    masks: NDArray[np.bool_]
    visible: NDArray[np.bool_]
    scores: NDArray[np.float32] | None = None

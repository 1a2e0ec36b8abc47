"""What a family follows through the frames of a video: numpy arrays, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Shown:
    """An object that a text found, in one frame.

    mask: [side, side] float32, logits; text: which of the prompts found it; score: of its detection, 0 to 1
    sure: from 0 to 1, how sure the tracker is that it is in the frame; is_hidden: whether it is not shown there
    """

    mask: NDArray[np.float32]
    text: int
    score: float
    sure: float
    is_hidden: bool


@dataclass(frozen=True)
class Tracks:
    """The objects of one clip.

    ids:     [n] int64, what the prompts call the objects; no two are alike
    masks:   [frames, n, height, width] bool; what they hold where an object is not visible counts for nothing
    visible: [frames, n] bool, whether the object is in the frame
    scores:  [frames, n] float32, 0 to 1; None of a model that gives none
    texts:   [n] int64, which text of the prompts found an object; None where prompts name each
    """

    ids: NDArray[np.int64]
    masks: NDArray[np.bool_]
    visible: NDArray[np.bool_]
    scores: NDArray[np.float32] | None = None
    texts: NDArray[np.int64] | None = None

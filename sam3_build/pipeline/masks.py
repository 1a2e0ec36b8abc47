"""Masks: what one prompt gives, mask logits at the size of a picture, and the boxes around masks. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]


# Logits that are fed back stay within these.
LARGEST = 32.0


@dataclass(frozen=True)
class Masks:
    """What one prompt on a picture gives: the mask of its object, or several masks to choose from.

    masks:   [n, height, width] bool, at least one
    scores:  [n] float32, the IoU that the model predicts of each, or how stable it is
    chosen:  the position of the one that is the answer
    visible: whether the object is in the picture; where it is not, masks and scores count for nothing. A model that
             does not say takes every object for visible
    logits:  [n, h, w] float32, what masks are made of, as the network takes one of them for an earlier mask; None where
             it takes none
    choice_scores: [candidates] float32, by which the network chose the one mask that it gives; None where all that
             there were to choose from are here
    """

    masks: NDArray[np.bool_]
    scores: Floats
    chosen: int
    visible: bool = True
    logits: Floats | None = None
    choice_scores: Floats | None = None


def enlarged(logits: Floats, size: tuple[int, int]) -> Floats:
    """Return `logits` [h, w] at `size` (height, width): bilinear between the centres of cells, as torch's interpolate
    with align_corners=False; nothing is smoothed where the picture is the smaller one.
    """
    import cv2
    import numpy as np

    height, width = size
    resized: Floats = cv2.resize(np.ascontiguousarray(logits), (width, height), interpolation=cv2.INTER_LINEAR)
    return resized


def fed_back(logits: Floats) -> Floats:
    """Return `logits` within the bounds in which predictors of SAM 2's kind take a mask again."""
    import numpy as np

    return np.clip(logits, -LARGEST, LARGEST)


def boxes_around(masks: NDArray[np.bool_]) -> Floats:
    """Return [n, 4], left, top, right, bottom of the pixels of `masks` [n, height, width]; 0 of an empty one."""
    import numpy as np

    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
        if len(rows):
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes

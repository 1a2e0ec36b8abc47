"""Objects of one text whose masks overlap: says which one gives way. No torch.

Source: transformers' Sam3VideoModel and Sam3VideoProcessor (5.23), which follow Meta's predictor.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sam3_build.pipeline.ious import mask_ious

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Flags = NDArray[np.bool_]
    Floats = NDArray[np.float32]
    Whole = NDArray[np.int64]

# The frame in which an object was last hidden that never was, and of one that is being removed.
NEVER, ALWAYS = -1, 2**31

# The logits of what gives way; of an object that keeps less than this share of its pixels all give way.
HIDDEN = -10.0
SHARE = 0.3


def recently_hidden(masks: Flags, texts: Whole, hidden: Whole, iou: float) -> Flags:
    """Return [n]: which objects are hidden again, because one that was hidden longer ago has the same mask.

    masks: [n, side, side]; texts: [n]; hidden: [n], the frame in which each was hidden last
    iou:   from this one on two masks are the same. An object that was never hidden takes no other's place
    """
    import numpy as np

    flags: Flags = np.zeros(len(masks), np.bool_)
    for group in _groups(texts):
        last, inside = hidden[group], masks[group]
        same = mask_ious(inside, inside) >= iou
        flags[group] = (same & (last[:, None] > last[None]) & (last[None] > NEVER)).any(1)
    return flags


def without_shrunk(masks: Floats, texts: Whole) -> Floats:
    """Return mask logits [n, side, side]; those of an object at most HIDDEN that loses its pixels to others.

    A pixel is the object's whose logit is highest.
    """
    import numpy as np

    result = masks.copy()
    for group in _groups(texts):
        own = masks[group]
        inside = own > 0
        won = inside & (own.argmax(0)[None] == np.arange(len(group))[:, None, None])
        lost = won.sum((1, 2)) / np.maximum(inside.sum((1, 2)), 1) < SHARE
        result[group[lost]] = np.minimum(own[lost], HIDDEN)
    return result


def apart(masks: Flags, texts: Whole, scores: Floats) -> Flags:
    """Return masks [n, height, width] that do not overlap: a pixel is the object's whose score [n] is highest."""
    import numpy as np

    result = masks.copy()
    for group in _groups(texts):
        claims = np.where(masks[group], scores[group][:, None, None], 0)
        result[group] &= claims.argmax(0)[None] == np.arange(len(group))[:, None, None]
    return result


def _groups(texts: Whole) -> Iterator[Whole]:
    """Yield the positions of the objects of each text that has several."""
    import numpy as np

    for text in np.unique(texts):
        (group,) = np.nonzero(texts == text)
        if len(group) > 1:
            yield group

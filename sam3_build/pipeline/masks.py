"""Takes mask logits, returns them at the size of a picture. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]


def enlarged(logits: Floats, size: tuple[int, int]) -> Floats:
    """Return `logits` [h, w] at `size` (height, width): bilinear between the centres of cells, as torch's interpolate
    with align_corners=False; nothing is smoothed where the picture is the smaller one.
    """
    import cv2
    import numpy as np

    height, width = size
    resized: Floats = cv2.resize(np.ascontiguousarray(logits), (width, height), interpolation=cv2.INTER_LINEAR)
    return resized

"""Takes a picture and what was found in it, returns the picture with masks tinted, outlined and boxed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sam3_build.drawing.palette import COLOURS, TINT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Lines get wider by one for each so many pixels of the picture's longer side.
LINE = 500


def drawn(
    picture: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    boxes: NDArray[np.float32],
    prompts: NDArray[np.int64],
    one_colour_each: bool = False,
) -> NDArray[np.uint8]:
    """Return [height, width, 3], RGB.

    masks:   [n, height, width]; boxes: [n, 4], left, top, right, bottom in pixels
    prompts: [n], whose instance each is. What one prompt found has different colours; several prompts have one each,
             and with `one_colour_each` a single one as well
    """
    import cv2
    import numpy as np

    line = max(1, max(picture.shape[:2]) // LINE)
    canvas = picture.copy()
    several = one_colour_each or len(set(prompts.tolist())) > 1
    for i, (mask, box) in enumerate(zip(masks, boxes, strict=True)):
        colour = COLOURS[(int(prompts[i]) if several else i) % len(COLOURS)]
        tint = np.array(colour, np.float32) * TINT
        canvas[mask] = (canvas[mask] * (1 - TINT) + tint).round().astype(np.uint8)
        parts, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, parts, -1, colour, line)
        x0, y0, x1, y1 = (int(edge) for edge in box.round())
        cv2.rectangle(canvas, (x0, y0), (x1, y1), colour, line)
    return canvas

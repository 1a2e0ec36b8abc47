"""A picture and what two sides found in it in, a small PNG out: the reference on the left, the target on the right.

A pair has the same colour on both sides. Every pixel that is in an instance of one side and not of its partner on the
other is painted red, on the right, however small the PNG is; a box without a partner is thick and red.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.compare.task import Found, Pair

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Picture = NDArray[np.uint8]
    Mask = NDArray[np.bool_]

# Pixels: each side is so wide, with a gap between them, so that all of it is 512 wide.
SIDE, GAP = 252, 8
# How much of a mask's colour there is in a pixel. The picture itself is grey, and none of it darker than this, so that
# colours belong to instances and to differences alone.
TINT = 0.5
DARKEST = 70
DIFFERENCE = (255, 0, 0)
BACKGROUND = 255
# Told apart by people who see no difference of red and green, and none of them red (Okabe and Ito).
COLOURS = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (86, 180, 233), (204, 121, 167), (240, 228, 66))


def write_overlay(path: Path, picture: Picture, expected: Found, actual: Found, pairs: Sequence[Pair]) -> None:
    """Write the PNG. `picture` is [height, width, 3], RGB; masks and boxes are in its pixels."""
    import numpy as np
    from PIL import Image

    partner = {pair.actual: pair.expected for pair in pairs}
    height = max(1, round(SIDE * picture.shape[0] / picture.shape[1]))
    known = {pair.expected for pair in pairs}
    left = _drawn(picture, height, expected, {i: i for i in known})
    right = _drawn(picture, height, actual, partner)
    differing = _differing(picture.shape[:2], expected, actual, pairs)
    right[_shrunk(differing, height)] = DIFFERENCE
    gap = np.full((height, GAP, 3), BACKGROUND, np.uint8)
    Image.fromarray(np.concatenate([left, gap, right], axis=1)).save(path, optimize=True)


def _differing(size: tuple[int, ...], expected: Found, actual: Found, pairs: Sequence[Pair]) -> Mask:
    """Return [height, width]: whether a pixel is in one instance and not in its partner."""
    import numpy as np

    differing = np.zeros(size, np.bool_)
    for pair in pairs:
        differing |= expected.masks[pair.expected] != actual.masks[pair.actual]
    for found, paired in ((expected, {p.expected for p in pairs}), (actual, {p.actual for p in pairs})):
        for i in range(len(found.queries)):
            if i not in paired:
                differing |= found.masks[i]
    return differing


def _drawn(picture: Picture, height: int, found: Found, colours: dict[int, int]) -> Picture:
    """Return one side; `colours` numbers the colour of each instance that has a partner."""
    import cv2
    import numpy as np

    small = cv2.resize(picture, (SIDE, height), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    canvas = np.repeat(DARKEST + grey * (1 - DARKEST / 255), 3, axis=2)
    for i in range(len(found.queries)):
        colour = COLOURS[colours[i] % len(COLOURS)] if i in colours else DIFFERENCE
        share = TINT * _coverage(found.masks[i], height)[..., None]
        canvas = canvas * (1 - share) + np.array(colour, np.float32) * share
    drawn = np.ascontiguousarray(canvas.round().astype(np.uint8))
    scale = np.array([SIDE / picture.shape[1], height / picture.shape[0]] * 2)
    for i, box in enumerate(found.boxes):
        x0, y0, x1, y1 = (int(edge) for edge in (box * scale).round())
        colour = COLOURS[colours[i] % len(COLOURS)] if i in colours else DIFFERENCE
        cv2.rectangle(drawn, (x0, y0), (x1, y1), colour, 1 if i in colours else 3)
    return drawn


def _coverage(mask: Mask, height: int) -> NDArray[np.float32]:
    """Return [height, SIDE]: which part of each small pixel the mask covers."""
    import cv2
    import numpy as np

    covered: NDArray[np.float32] = cv2.resize(mask.astype(np.float32), (SIDE, height), interpolation=cv2.INTER_AREA)
    return covered


def _shrunk(mask: Mask, height: int) -> Mask:
    """Return [height, SIDE]: where any of the mask is, so that a single pixel of a large picture still shows."""
    shrunk: Mask = _coverage(mask, height) > 0
    return shrunk

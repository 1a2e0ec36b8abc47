"""The colours of overlays, and how an image is reduced to a palette: a third of the bytes.

Colours that mean something stay exactly as they are; greys and tints are as near as steps of them come.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

Colour = tuple[int, int, int]

DIFFERENCE: Colour = (255, 0, 0)
BACKGROUND: Colour = (255, 255, 255)
# Of words: what is read first, and what explains it.
INK: Colour = (26, 32, 39)
SOFT: Colour = (80, 91, 103)
# Boxes of a prompt: what is meant, and what is not.
MEANT: Colour = (0, 150, 60)
NOT_MEANT: Colour = (200, 0, 40)
# Instances: told apart by people who see no difference of red and green, and none of them red (Okabe and Ito).
COLOURS: tuple[Colour, ...] = (
    (0, 114, 178), (230, 159, 0), (0, 158, 115), (86, 180, 233), (204, 121, 167), (240, 228, 66),
)  # fmt: skip
# How much of a mask's colour there is in a pixel. Below it lies a grey picture, no pixel of which is darker than this,
# so that colours belong to instances and to differences alone.
TINT = 0.5
DARKEST = 70

# Of the palette's 256: greys, tints of each instance's colour; what is left goes to what is in the image.
_GREYS, _TINTS = 32, 8
_STEP = 4


def in_few_colours(image: Image.Image) -> Image.Image:
    """Return the RGB image with a palette of 256 colours."""
    from PIL import Image

    known = _known()
    left = 256 - len(known)
    # Most of an image are greys; the colours of small things in a picture count as much. Colours are improved until no
    # more than one pixel of a hundred gets another one: to the last pixel takes three times as long and shows nowhere.
    moving = image.width * image.height // 100
    few = image.quantize(left, Image.Quantize.MAXCOVERAGE, kmeans=moving, dither=Image.Dither.NONE).getpalette() or []
    found = (few[at : at + 3] for at in range(0, 3 * left, 3))
    # Pillow looks nearest colours up in steps of four: what comes that near to a known colour would take its pixels.
    others = [colour for colour in found if min(_distance(colour, own) for own in known) > _STEP]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for colour in (*known, *others) for part in colour])
    return image.quantize(palette=palette, dither=Image.Dither.NONE)


def _distance(colour: Sequence[int], other: Sequence[int]) -> int:
    return max(abs(a - b) for a, b in zip(colour, other, strict=True))


def _known() -> Sequence[Colour]:
    """Return the colours that anything but a picture is drawn with."""
    greys = [DARKEST + (255 - DARKEST) * i // (_GREYS - 1) for i in range(_GREYS)]
    below = [DARKEST + (255 - DARKEST) * i // (_TINTS - 1) for i in range(_TINTS)]
    tints = [tuple(round(TINT * part + (1 - TINT) * grey) for part in colour) for colour in COLOURS for grey in below]
    return [
        *(BACKGROUND, INK, SOFT, DIFFERENCE, MEANT, NOT_MEANT, *COLOURS),
        *((grey, grey, grey) for grey in greys),
        *((r, g, b) for r, g, b in tints),
    ]

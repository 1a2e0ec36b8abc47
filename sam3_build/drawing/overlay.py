"""Takes a picture, a prompt and the regions of two sides, returns three panels: prompt, reference, target.

A pair has the same colour on both sides. Every pixel that is in a region of one side and not of its partner on the
other is painted red, on the target's panel, however small that is; a box without a partner is thick and red.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sam3_build.drawing.palette import (
    BACKGROUND,
    COLOURS,
    DARKEST,
    DIFFERENCE,
    MEANT,
    NOT_MEANT,
    TINT,
    Colour,
    in_few_colours,
)
from sam3_build.pipeline.prompts import Box, Point

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Picture = NDArray[np.uint8]
    Mask = NDArray[np.bool_]
    Panels = tuple[Picture, Picture, Picture]


class Regions(Protocol):
    """What was found in one picture: instances, or the objects of a frame."""

    @property
    def masks(self) -> NDArray[np.bool_]:
        """[n, height, width]."""

    @property
    def boxes(self) -> NDArray[np.float32]:
        """[n, 4], left, top, right, bottom in pixels."""


class Partners(Protocol):
    """Positions of two regions, one on each side, that are each other's."""

    @property
    def expected(self) -> int:
        """Among those of the reference."""

    @property
    def actual(self) -> int:
        """Among those of the target."""


# Pixels: each panel of a PNG is so wide, twice the miniature's pictures, with gaps in between: 1024 in all. None is
# higher than TALLEST times that.
WIDTH, GAP, TALLEST = 336, 8, 2
# Lines get wider by one for each LINE of a panel's width. Dashes are DASH times as long as that, and the radius of a
# point is POINT times that.
LINE, DASH, POINT = 168, 5, 4


def panels(
    picture: Picture,
    boxes: Sequence[Box],
    expected: Regions,
    actual: Regions | None,
    pairs: Sequence[Partners],
    width: int = WIDTH,
    numbers: Sequence[int] = (),
    points: Sequence[Point] = (),
) -> Panels:
    """Return the prompt, what the reference found and what the target found, `width` pixels wide where that fits.

    picture: [height, width, 3], RGB; boxes, points, masks and the boxes of regions are in its pixels
    boxes, points: the prompt's
    actual:  None where the target's outputs could not be read: its panel is empty
    numbers: of the colours of the reference's regions; without any, their positions
    """
    import cv2
    import numpy as np

    scale = min(width / picture.shape[1], TALLEST * width / picture.shape[0])
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    line = max(1, width // LINE)
    prompt = _prompt(picture, boxes, points, size, line)
    numbers = numbers or range(len(expected.masks))
    drawn = range(len(expected.masks)) if actual is None else [pair.expected for pair in pairs]
    expected_panel = _drawn(picture, size, expected, {i: numbers[i] for i in drawn}, line)
    if actual is None:
        return prompt, expected_panel, np.full_like(expected_panel, BACKGROUND)
    actual_panel = _drawn(picture, size, actual, {pair.actual: numbers[pair.expected] for pair in pairs}, line)
    differing = _differing(picture.shape[:2], expected, actual, pairs).astype(np.float32)
    actual_panel[cv2.resize(differing, size, interpolation=cv2.INTER_AREA) > 0] = DIFFERENCE
    return prompt, expected_panel, actual_panel


def write_overlay(path: Path, drawn: Sequence[Picture]) -> None:
    """Write panels of one picture beside each other as a PNG."""
    import numpy as np
    from PIL import Image

    gap = np.full((drawn[0].shape[0], GAP, 3), BACKGROUND, np.uint8)
    first, *others = drawn
    beside = np.concatenate([first, *(part for panel in others for part in (gap, panel))], axis=1)
    in_few_colours(Image.fromarray(beside)).save(path, optimize=True)


def _prompt(
    picture: Picture, boxes: Sequence[Box], points: Sequence[Point], size: tuple[int, int], line: int
) -> Picture:
    """Return the picture as it is, with the prompt's boxes and points; what of a box lies outside is on the edge."""
    import cv2
    import numpy as np

    canvas: Picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).copy()
    scale = np.array([size[0] / picture.shape[1], size[1] / picture.shape[0]])
    for box in boxes:
        edges = np.array([[box.x, box.y], [box.x + box.w, box.y + box.h]])
        corners = (edges * scale).round().clip(0, size).astype(int)
        canvas[_frame(size, corners, line + 1)] = BACKGROUND
        frame = _frame(size, corners, line)
        if not box.label:
            frame &= np.add(*np.indices(frame.shape)) // (DASH * line) % 2 == 0
        canvas[frame] = MEANT if box.label else NOT_MEANT
    for point in points:
        # A point that is not meant is a ring, for those who see no difference between red and green.
        x, y = (np.array([point.x, point.y]) * scale).round().clip(0, np.array(size) - 1).astype(int).tolist()
        cv2.circle(canvas, (x, y), (POINT + 1) * line, BACKGROUND, cv2.FILLED)
        cv2.circle(canvas, (x, y), POINT * line, MEANT if point.label else NOT_MEANT, cv2.FILLED)
        if not point.label:
            cv2.circle(canvas, (x, y), POINT * line // 2, BACKGROUND, cv2.FILLED)
    return canvas


def _frame(size: tuple[int, int], corners: NDArray[np.int64], reach: int) -> Mask:
    """Return [height, width]: where a rectangle's edges are, `reach` pixels to the outside and to the inside."""
    import numpy as np

    (left, top), (right, bottom) = corners
    frame = np.zeros(size[::-1], np.bool_)
    frame[max(0, top - reach) : bottom + reach, max(0, left - reach) : right + reach] = True
    frame[top + reach : max(0, bottom - reach), left + reach : max(0, right - reach)] = False
    return frame


def _differing(size: tuple[int, ...], expected: Regions, actual: Regions, pairs: Sequence[Partners]) -> Mask:
    """Return [height, width]: whether a pixel is in one region and not in its partner."""
    import numpy as np

    differing = np.zeros(size, np.bool_)
    for pair in pairs:
        differing |= expected.masks[pair.expected] != actual.masks[pair.actual]
    for found, paired in ((expected, {p.expected for p in pairs}), (actual, {p.actual for p in pairs})):
        for i in range(len(found.masks)):
            if i not in paired:
                differing |= found.masks[i]
    return differing


def _drawn(picture: Picture, size: tuple[int, int], found: Regions, numbers: Mapping[int, int], line: int) -> Picture:
    """Return one side. `numbers` are those of the colours of regions that are not marked as being without a partner."""
    import cv2
    import numpy as np

    # What the picture is drawn for are regions: noise behind them would only make the file larger.
    small = cv2.medianBlur(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), 3)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    canvas = np.repeat(DARKEST + grey * (1 - DARKEST / 255), 3, axis=2)
    colours: list[Colour] = [
        COLOURS[numbers[i] % len(COLOURS)] if i in numbers else DIFFERENCE for i in range(len(found.masks))
    ]
    for i, colour in enumerate(colours):
        covered = cv2.resize(found.masks[i].view(np.uint8) * 255, size, interpolation=cv2.INTER_AREA)
        share = (TINT / 255 * covered[..., None]).astype(np.float32)
        canvas = canvas * (1 - share) + np.array(colour, np.float32) * share
    drawn = np.ascontiguousarray(canvas.round().astype(np.uint8))
    scale = np.array([size[0] / picture.shape[1], size[1] / picture.shape[0]] * 2)
    for i, (box, colour) in enumerate(zip(found.boxes, colours, strict=True)):
        x0, y0, x1, y1 = (int(edge) for edge in (box * scale).round())
        cv2.rectangle(drawn, (x0, y0), (x1, y1), colour, line if i in numbers else 2 * line + 1)
    return drawn

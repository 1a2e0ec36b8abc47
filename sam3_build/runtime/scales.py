"""Several scales: takes a picture and what is asked of an object, returns windows; fuses what is found in each.

A network sees a window of fixed size. At scale 1 the picture fills it; at 1.5 it shows the two thirds of each side that
are around the object, and at 0.5 the picture lies in its middle, and all around is black.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from sam3_build.errors import BuildError
from sam3_build.pipeline.masks import Masks
from sam3_build.runtime.ask import Ask

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

# A canvas at half of the scale has four times the pixels; below, they would be for nothing but black.
SMALLEST, LARGEST = 0.5, 8.0


@dataclass(frozen=True)
class Window:
    """A part of a picture in pixels, or more than all of it."""

    left: int
    top: int
    width: int
    height: int

    @classmethod
    def around(cls, ask: Ask, scale: float, size: tuple[int, int]) -> Self:
        """Return the window at a scale. It holds all points and boxes that are asked, and is larger where they need it.

        size: height and width of the picture
        """
        xs = [p.x for p in ask.marks.points] + [x for b in ask.marks.boxes for x in (b.x, b.x + b.w)]
        ys = [p.y for p in ask.marks.points] + [y for b in ask.marks.boxes for y in (b.y, b.y + b.h)]
        height, width = size
        spread = max((max(xs) - min(xs) + 1) / width, (max(ys) - min(ys) + 1) / height)
        share = max(1 / scale, min(1.0, spread))
        own = math.ceil(width * share), math.ceil(height * share)
        left, top = (
            _start(min(along), max(along), inside, whole)
            for along, inside, whole in zip((xs, ys), own, (width, height), strict=True)
        )
        return cls(left, top, *own)

    def of(self, picture: Image.Image) -> Image.Image:
        """Return what it shows of a picture, black outside."""
        return picture.crop((self.left, self.top, self.left + self.width, self.top + self.height))

    def moved(self, ask: Ask) -> Ask:
        """Return what is asked, in pixels of the window."""
        points = tuple(replace(p, x=p.x - self.left, y=p.y - self.top) for p in ask.marks.points)
        boxes = tuple(replace(b, x=b.x - self.left, y=b.y - self.top) for b in ask.marks.boxes)
        return replace(ask, marks=replace(ask.marks, points=points, boxes=boxes))

    def inside(self, size: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return where it is in a picture of this size (height, width), and where that is in it: rows, columns."""
        (top, down), (left, right) = (
            (max(0, start), min(whole, start + own))
            for start, own, whole in ((self.top, self.height, size[0]), (self.left, self.width, size[1]))
        )
        return (slice(top, down), slice(left, right)), (
            slice(top - self.top, down - self.top),
            slice(left - self.left, right - self.left),
        )


def scales(given: Sequence[float]) -> tuple[float, ...]:
    """Return scales, checked. BuildError names the one that is wrong."""
    for scale in given:
        if not SMALLEST <= scale <= LARGEST:
            raise BuildError(f"scales: {scale:g} is not from {SMALLEST:g} to {LARGEST:g}")
    if not given:
        raise BuildError("scales: give one at least, such as 0.5,1,1.5")
    return tuple(given)


def read(text: str) -> tuple[float, ...]:
    """Return the scales of a text such as `0.5,1,1.5`. BuildError says which is none."""
    found = []
    for part in text.split(","):
        try:
            found.append(float(part))
        except ValueError as error:
            raise BuildError(f"scales: {part!r} is no number; give some such as 0.5,1,1.5") from error
    return scales(found)


def fused(found: Sequence[tuple[Window, Masks]], size: tuple[int, int]) -> Masks:
    """Return one mask of what is found in each window: pixels where at least half of what was predicted says so.

    size: height and width of the picture. The mask that is taken of each window weighs as much as its score, within the
    window; one in which the object is not visible weighs nothing. The score is the mean by the same weights.
    """
    import numpy as np

    votes, cast = np.zeros(size, np.float64), np.zeros(size, np.float64)
    weights = [max(0.0, float(masks.scores[masks.chosen])) if masks.visible else 0.0 for _, masks in found]
    for (window, masks), weight in zip(found, weights, strict=True):
        own, there = window.inside(size)
        votes[own] += weight * masks.masks[masks.chosen][there]
        cast[own] += weight
    inside: NDArray[np.bool_] = (votes > 0) & (2 * votes >= cast)
    total = sum(weights)
    score = sum(weight * weight for weight in weights) / total if total else 0.0
    return Masks(inside[None], np.array([score], np.float32), 0, total > 0)


def _start(first: float, last: float, own: int, whole: int) -> int:
    """Return where a window of `own` pixels begins: what is asked is in its middle, or the picture, if that is less."""
    if own >= whole:
        return -((own - whole) // 2)
    middle = round((first + last - own) / 2)
    return max(0, min(whole - own, middle))

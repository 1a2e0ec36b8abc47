"""Takes a seed and a number, returns a drawn scene: a picture, its shapes, and the visible pixels of each. No torch.

A scene holds 1 to 5 coloured shapes on a textured, noisy background. At least half of every shape is visible; shapes of
one colour never overlap, for nobody could tell where one ends. The same seed and number give the same scene, whatever
was drawn before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Values = NDArray[np.float32]
    Mask = NDArray[np.bool_]

# Training refuses these seeds: one series of scenes is for the published numbers, the other chooses among a run's
# weights.
HELD_OUT = 500_000
CHOOSING = 700_000

SIDE = 168
COLOURS = {
    "red": (214, 38, 38),
    "green": (38, 158, 62),
    "blue": (40, 82, 220),
    "yellow": (238, 208, 38),
    "purple": (142, 48, 178),
    "orange": (244, 128, 20),
}
SHAPES = ("circle", "square", "triangle", "star")
MOST_SHAPES = 5
RADII = (12.0, 40.0)
LEAST_VISIBLE = 0.5

# Shapes are drawn on a canvas with this margin, so that what lies outside the picture counts as not visible.
MARGIN = 48

# How often a further shape repeats an earlier one's colour and shape, only its colour, or only its shape: otherwise
# hardly any prompt would mean two things, or have to tell a thing from one that is half like it.
REPEATS = {"both": 0.3, "colour": 0.2, "shape": 0.15}


ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE].astype(np.float32)


@dataclass(frozen=True)
class Shape:
    """A shape: its words, the pixels of it that are seen [side, side], and the box around these (xyxy, pixels)."""

    colour: str
    shape: str
    mask: Mask
    box: tuple[int, int, int, int]

    @property
    def kind(self) -> tuple[str, str]:
        """Colour and shape: shapes of the same kind look alike."""
        return self.colour, self.shape


@dataclass(frozen=True)
class Scene:
    """A picture [side, side, 3] (RGB, 8 bits) and its shapes, the lowest first."""

    picture: Pixels
    shapes: tuple[Shape, ...]


@dataclass
class _Placed:
    colour: str
    shape: str
    full: Mask
    seen: Mask
    area: int


def draw(seed: int, number: int) -> Scene:
    """Return scene `number` of the series `seed`."""
    rng = np.random.default_rng([seed, number])
    placed: list[_Placed] = []
    for _ in range(int(rng.integers(1, MOST_SHAPES + 1))):
        _place(placed, rng)
    picture = background(rng)
    for each in placed:
        paint(picture, each.colour, each.full, rng)
    picture += rng.uniform(2.0, 12.0) * rng.standard_normal(picture.shape, dtype=np.float32)
    shapes = tuple(Shape(each.colour, each.shape, _inside(each.seen), _box(_inside(each.seen))) for each in placed)
    return Scene(np.clip(picture, 0, 255).astype(np.uint8), shapes)


def _place(placed: list[_Placed], rng: np.random.Generator) -> None:
    """Add a shape that leaves at least half of every shape visible; none when some tries found no free space."""
    colour, shape = _kind(placed, rng)
    for attempt in range(12):
        radius = rng.uniform(RADII[0], RADII[1] - 2 * attempt)
        x, y = rng.uniform(0.6 * radius, SIDE - 0.6 * radius, size=2)
        full = outline(shape, x + MARGIN, y + MARGIN, radius, rng.uniform(0, 2 * math.pi))
        area = int(np.count_nonzero(full))
        if np.count_nonzero(_inside(full)) < LEAST_VISIBLE * area:
            continue
        if any(each.colour == colour and (each.full & full).any() for each in placed):
            continue
        left = [(each.seen & ~full, each) for each in placed]
        if all(np.count_nonzero(_inside(seen)) >= LEAST_VISIBLE * each.area for seen, each in left):
            for seen, each in left:
                each.seen = seen
            placed.append(_Placed(colour, shape, full, full, area))
            return


def _kind(placed: list[_Placed], rng: np.random.Generator) -> tuple[str, str]:
    colour, shape = str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES))
    draw_again = rng.random()
    if placed:
        other = placed[int(rng.integers(len(placed)))]
        if draw_again < REPEATS["both"]:
            return other.colour, other.shape
        if draw_again < REPEATS["both"] + REPEATS["colour"]:
            return other.colour, shape
        if draw_again < sum(REPEATS.values()):
            return colour, other.shape
    return colour, shape


def outline(shape: str, x: float, y: float, radius: float, turn: float) -> Mask:
    """Return the pixels of a shape on the canvas. Shapes of one radius have about the same area."""
    import cv2

    canvas = np.zeros((SIDE + 2 * MARGIN, SIDE + 2 * MARGIN), np.uint8)
    corners = {"circle": 48, "square": 4, "triangle": 3, "star": 10}[shape]
    reach = {"circle": 1.0, "square": 1.2, "triangle": 1.25, "star": 1.25}[shape] * radius
    angles = turn + np.arange(corners) * (2 * math.pi / corners)
    lengths = np.full(corners, reach)
    if shape == "star":
        lengths[1::2] *= 0.45
    points = np.stack([x + lengths * np.cos(angles), y + lengths * np.sin(angles)], axis=1)
    # OpenCV takes points in sixteenths of a pixel, and its pixel centres are whole numbers.
    cv2.fillPoly(canvas, [np.round((points - 0.5) * 16).astype(np.int32)], 1, shift=4)
    return canvas.astype(bool)


def background(rng: np.random.Generator) -> Values:
    """Return a greyish, smoothly uneven surface with a pattern on it: [side, side, 3] float32."""
    tint = rng.uniform(30, 225) + rng.uniform(-20, 20, size=3)
    picture = _clouds(rng, SIDE, 3) * np.float32(rng.uniform(5, 22)) + tint.astype(np.float32)
    depth = np.float32(rng.uniform(0, 26))
    picture += (_pattern(rng) * depth)[..., None]
    return picture


def _clouds(rng: np.random.Generator, side: int, channels: int) -> Values:
    import cv2

    cells = int(rng.integers(2, 13))
    coarse = rng.standard_normal((cells, cells, channels), dtype=np.float32)
    smooth = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.asarray(smooth, np.float32).reshape(side, side, channels)


def _pattern(rng: np.random.Generator) -> Values:
    """Return nothing, stripes, checks, waves or a slope: values -1 to 1, [side, side] or all alike."""
    kind = rng.choice(["none", "stripes", "checks", "waves", "slope"])
    turn, period, phase = rng.uniform(0, math.pi), rng.uniform(5, 40), rng.uniform(0, 2 * math.pi)
    cos, sin = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    if kind == "none":
        return np.zeros((1, 1), np.float32)
    along = (COLUMNS * cos + ROWS * sin) / np.float32(period) + np.float32(phase)
    if kind == "slope":
        return np.asarray((along - along.mean()) * (period / SIDE), np.float32)
    if kind == "stripes":
        return np.sign(_wave(along))
    across = (ROWS * cos - COLUMNS * sin) / np.float32(period)
    product = _wave(along) * _wave(across)
    return np.sign(product) if kind == "checks" else product


def _wave(turns: Values) -> Values:
    return np.asarray(np.sin(2 * math.pi * turns), np.float32)


def paint(picture: Values, colour: str, full: Mask, rng: np.random.Generator) -> None:
    """Paint a shape, pixels of the canvas, over a picture: its colour, a little off, lit from one side, blotched."""
    shade = (np.array(COLOURS[colour]) + rng.normal(0, 9, size=3)).astype(np.float32)
    turn, strength, blotches = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.3), rng.uniform(0, 7)
    inside = _inside(full)
    if not inside.any():
        return
    left, top, right, bottom = _box(inside)
    window = slice(top, bottom), slice(left, right)
    slope = np.float32(math.cos(turn)) * COLUMNS + np.float32(math.sin(turn)) * ROWS
    light = 1 + np.float32(strength) * (slope[window] / SIDE - np.float32(0.5))
    surface = shade * light[..., None]
    surface += _clouds(rng, max(bottom - top, right - left), 1)[: bottom - top, : right - left] * np.float32(blotches)
    picture[window][inside[window]] = surface[inside[window]]


def _inside(canvas: Mask) -> Mask:
    return canvas[MARGIN:-MARGIN, MARGIN:-MARGIN]


def _box(mask: Mask) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

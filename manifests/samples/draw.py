"""Draws the sample pictures: coloured shapes on smooth random backgrounds. Run it to draw them again: the same pixels.

Every pixel is computed here, from a seed, so that no drawing library's version shows in them.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

RED, GREEN, BLUE, YELLOW, PURPLE = (205, 40, 40), (50, 160, 70), (50, 80, 200), (230, 200, 50), (140, 60, 170)


class Shape(NamedTuple):
    """A shape in the box x, y, w, h (pixels)."""

    kind: str
    colour: tuple[int, int, int]
    x: int
    y: int
    w: int
    h: int


class Scene(NamedTuple):
    """A picture: its size, the seed of its background, and its shapes, later ones on top."""

    width: int
    height: int
    seed: int
    shapes: tuple[Shape, ...]


SCENES = {
    "scene1": Scene(
        168,
        168,
        1,
        (
            Shape("circle", RED, 40, 40, 30, 30),
            Shape("square", BLUE, 90, 80, 20, 20),
            Shape("triangle", GREEN, 112, 22, 40, 36),
            Shape("circle", RED, 24, 106, 44, 44),
            Shape("star", YELLOW, 112, 108, 46, 46),
        ),
    ),
    "scene2": Scene(
        320,
        240,
        2,
        (
            Shape("star", YELLOW, 10, 10, 40, 40),
            Shape("star", RED, 70, 120, 90, 90),
            Shape("circle", BLUE, 130, 150, 60, 60),
            Shape("square", PURPLE, 100, 24, 56, 56),
            Shape("star", GREEN, 220, 40, 70, 70),
            Shape("triangle", BLUE, 230, 150, 64, 60),
        ),
    ),
}


def clip(frame: int) -> Scene:
    """Return a frame of the clip: a star goes right, and a circle goes down behind a square that stays."""
    shapes = (
        Shape("star", YELLOW, 10 + 6 * frame, 24, 40, 40),
        Shape("circle", RED, 82, 20 + 12 * frame, 34, 34),
        Shape("square", BLUE, 74, 84, 50, 24),
    )
    return Scene(160, 120, 3, shapes)


FRAMES = 5


def draw(scene: Scene) -> bytes:
    """Return the pixels of `scene`: rows of RGB bytes."""
    background = _background(scene)
    insides = [(shape, _inside(shape.kind)) for shape in scene.shapes]
    pixels = bytearray()
    for y in range(scene.height):
        for x in range(scene.width):
            colour = background(x, y)
            for shape, inside in insides:
                if shape.x <= x < shape.x + shape.w and shape.y <= y < shape.y + shape.h:
                    covered = sum(
                        inside((x + dx - shape.x) / shape.w * 2 - 1, (y + dy - shape.y) / shape.h * 2 - 1)
                        for dx in (0.25, 0.75)
                        for dy in (0.25, 0.75)
                    )
                    pairs = zip(colour, shape.colour, strict=True)
                    colour = tuple((under * (4 - covered) + over * covered) // 4 for under, over in pairs)
            pixels += bytes(colour)
    return bytes(pixels)


def mask(scene: Scene, shape: Shape) -> bytes:
    """Return where in `scene` a shape would be seen alone: rows of grey bytes, 255 inside."""
    inside = _inside(shape.kind)
    centres = (
        ((x + 0.5 - shape.x) / shape.w * 2 - 1, (y + 0.5 - shape.y) / shape.h * 2 - 1)
        for y in range(scene.height)
        for x in range(scene.width)
    )
    return bytes(255 * (abs(x) <= 1 and abs(y) <= 1 and inside(x, y)) for x, y in centres)


def _background(scene: Scene) -> Callable[[int, int], tuple[int, ...]]:
    """Return a smooth random field: random colours on a coarse grid, bilinear between, in steps of 16."""
    rng, step = random.Random(scene.seed), 40  # noqa: S311 (a picture, not a secret)
    columns = scene.width // step + 2
    grid = [
        [[rng.randrange(90, 200) for _ in range(3)] for _ in range(columns)] for _ in range(scene.height // step + 2)
    ]

    def colour(x: int, y: int) -> tuple[int, ...]:
        (i, u), (j, v) = divmod(x, step), divmod(y, step)
        corners = (grid[j][i], grid[j][i + 1], grid[j + 1][i], grid[j + 1][i + 1])
        weights = ((step - u) * (step - v), u * (step - v), (step - u) * v, u * v)
        mixed = (sum(c[k] * w for c, w in zip(corners, weights, strict=True)) // step**2 for k in range(3))
        return tuple(value // 16 * 16 for value in mixed)

    return colour


def _inside(kind: str) -> Callable[[float, float], bool]:
    """Return whether a point of the square from -1 to 1 (y down) lies in the shape."""
    if kind == "square":
        return lambda x, y: True
    if kind == "circle":
        return lambda x, y: x * x + y * y <= 1
    if kind == "triangle":
        return lambda x, y: 2 * abs(x) <= 1 + y
    # A five-pointed star, point up: within one of its ten corners' sectors, below the line from tip to notch.
    notch = math.cos(math.tau / 5) / math.cos(math.tau / 10)

    def star(x: float, y: float) -> bool:
        angle = math.atan2(x, -y) % (math.tau / 5)
        angle = min(angle, math.tau / 5 - angle)
        across, along = math.hypot(x, y) * math.sin(angle), math.hypot(x, y) * math.cos(angle)
        side, height = notch * math.sin(math.tau / 10), 1 - notch * math.cos(math.tau / 10)
        return across * height <= (1 - along) * side

    return star


def main(folder: Path) -> None:
    """Write `<scene>.png` for every scene into `folder`, frames of the clip into `clip`, masks of both into `masks`."""
    from PIL import Image

    for name in ("clip", "masks"):
        (folder / name).mkdir(exist_ok=True)
    for name, scene in {"star": SCENES["scene1"], "square": clip(1)}.items():
        pixels = mask(scene, scene.shapes[-1])
        Image.frombytes("L", (scene.width, scene.height), pixels).save(folder / f"masks/{name}.png", optimize=True)
    frames = {f"clip/{frame:05}": clip(frame) for frame in range(FRAMES)}
    for name, scene in (SCENES | frames).items():
        image = Image.frombytes("RGB", (scene.width, scene.height), draw(scene))
        image.save(folder / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)

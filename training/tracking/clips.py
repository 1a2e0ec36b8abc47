"""Takes a seed and a number, returns a drawn clip: frames, its shapes, and the visible pixels of each in every frame.

Two or three shapes of different colours move, turn and cross before one background, and bounce off its edges; the upper
ones hide the lower ones, at times wholly, until they appear again. All are well visible in the first frame. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from training import scenes
from training.scenes import COLOURS, MARGIN, SHAPES, SIDE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Masks = NDArray[np.bool_]

FEWEST_FRAMES, MOST_FRAMES = 8, 16
RADII = (12.0, 36.0)
# Pixels and radians per frame.
SPEEDS = (1.5, 9.0)
TURNS = (-0.25, 0.25)
VISIBLE_AT_FIRST = 0.6
# In such a share of clips the lowest shape passes wholly below the uppermost, so many frames after the first.
HIDING = 0.5
MEETING = (3, 9)
# From so many pixels on, an object counts as visible.
FEWEST_PIXELS = 12

# Clips draw from series of their own, whatever number a still scene has.
_CLIPS = 2


@dataclass(frozen=True)
class Clip:
    """A drawn clip.

    frames: [t, side, side, 3] uint8, RGB
    masks:  [t, n, side, side] bool, the visible pixels of each shape, all False where it is hidden
    """

    frames: Pixels
    masks: Masks

    @property
    def visible(self) -> NDArray[np.bool_]:
        """Whether each shape is visible: [t, n]."""
        return np.asarray(self.masks.sum(axis=(2, 3)) >= FEWEST_PIXELS)


@dataclass
class _Mover:
    """A shape on its way. position, speed: x and y in pixels, per frame; surface: the seed of its look."""

    colour: str
    shape: str
    radius: float
    position: NDArray[np.float64]
    speed: NDArray[np.float64]
    angle: float
    turn: float
    surface: int

    def outline(self) -> scenes.Mask:
        x, y = self.position + MARGIN
        return scenes.outline(self.shape, x, y, self.radius, self.angle)

    def move(self) -> None:
        """Go one frame on; turn back where half of the shape is outside."""
        self.position = self.position + self.speed
        self.angle += self.turn
        for axis in (0, 1):
            if not 0.3 * self.radius < self.position[axis] < SIDE - 0.3 * self.radius:
                inwards = 1.0 if self.position[axis] < SIDE / 2 else -1.0
                self.speed[axis] = inwards * abs(self.speed[axis])


def draw(seed: int, number: int, shown: Sequence[int] | None = None, *, alike: bool = False) -> Clip:
    """Return clip `number` of the series `seed`: the frames `shown`, in that order, or FEWEST to MOST of them.

    A frame is the same whichever others are shown. alike: the shapes are of one kind and colour, so that only where
    they were tells one from the other
    """
    rng = np.random.default_rng([seed, number, _CLIPS])
    count = int(rng.integers(FEWEST_FRAMES, MOST_FRAMES + 1))
    chosen = range(count) if shown is None else shown
    movers = _movers(rng, alike=alike)
    background, noise = scenes.background(rng), rng.uniform(2.0, 10.0)
    pictures, masks = {}, {}
    for t in range(max(chosen) + 1):
        if t in chosen:
            outlines = [mover.outline() for mover in movers]
            picture = background.copy()
            for mover, outline in zip(movers, outlines, strict=True):
                scenes.paint(picture, mover.colour, outline, np.random.default_rng(mover.surface))
            own = np.random.default_rng([seed, number, _CLIPS, t])
            picture += noise * own.standard_normal(picture.shape, dtype=np.float32)
            pictures[t], masks[t] = np.clip(picture, 0, 255).astype(np.uint8), _seen(outlines)
        for mover in movers:
            mover.move()
    return Clip(np.stack([pictures[t] for t in chosen]), np.stack([masks[t] for t in chosen]))


def _movers(rng: np.random.Generator, *, alike: bool) -> list[_Mover]:
    """Return two or three shapes of different colours, or of one colour and kind, the lowest first, well visible."""
    count = int(rng.integers(2, 4))
    colours = [str(colour) for colour in rng.permutation(list(COLOURS))[:count]]
    while True:
        movers = [_mover(colour, rng) for colour in colours]
        if alike:
            for mover in movers[1:]:
                mover.colour, mover.shape = movers[0].colour, movers[0].shape
        if rng.random() < HIDING:
            _hide(movers[0], movers[-1], frames=int(rng.integers(*MEETING)))
        outlines = [mover.outline() for mover in movers]
        seen = _seen(outlines).sum(axis=(1, 2))
        if all(pixels >= VISIBLE_AT_FIRST * full.sum() for pixels, full in zip(seen, outlines, strict=True)):
            return movers


def _mover(colour: str, rng: np.random.Generator) -> _Mover:
    radius = float(rng.uniform(*RADII))
    position = rng.uniform(radius, SIDE - radius, size=2)
    # Towards another point of the picture, so that ways cross.
    way = rng.uniform(0.2 * SIDE, 0.8 * SIDE, size=2) - position
    speed = way / max(1.0, float(np.hypot(*way))) * rng.uniform(*SPEEDS)
    return _Mover(
        colour=colour,
        shape=str(rng.choice(SHAPES)),
        radius=radius,
        position=position,
        speed=speed,
        angle=float(rng.uniform(0, 2 * math.pi)),
        turn=float(rng.uniform(*TURNS)),
        surface=int(rng.integers(2**31)),
    )


def _hide(lower: _Mover, upper: _Mover, frames: int) -> None:
    """Make the lower shape smaller than the upper one and send it where that will be."""
    lower.radius = min(lower.radius, 0.6 * upper.radius)
    lower.speed = (upper.position + frames * upper.speed - lower.position) / frames


def _seen(outlines: list[scenes.Mask]) -> Masks:
    """Return [n, side, side], what each shape shows below those after it."""
    seen, above = [], np.zeros_like(outlines[0])
    for outline in reversed(outlines):
        seen.append((outline & ~above)[MARGIN:-MARGIN, MARGIN:-MARGIN])
        above = above | outline
    return np.stack(seen[::-1])

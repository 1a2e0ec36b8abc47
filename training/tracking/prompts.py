"""Clicks, boxes and masks on objects of drawn pictures: takes masks, returns arrays of prompts. Numpy and OpenCV."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Floats = NDArray[np.float32]

FOREGROUND, BACKGROUND, TOP_LEFT, BOTTOM_RIGHT = 1, 0, 2, 3


def click(mask: Mask, rng: np.random.Generator) -> Floats:
    """Return a random pixel's centre of a mask [h, w] that has one: x and y in its pixels, [2]."""
    rows, columns = np.nonzero(mask)
    i = int(rng.integers(len(rows)))
    return np.array([columns[i] + 0.5, rows[i] + 0.5], np.float32)


def middle(mask: Mask) -> Floats:
    """Return the centre of the pixel that lies deepest in a mask [h, w]: x and y in its pixels, [2]."""
    import cv2

    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(depth)), mask.shape)
    return np.array([column + 0.5, row + 0.5], np.float32)


def correction(wanted: Mask, found: Mask, rng: np.random.Generator | None = None) -> tuple[Floats, int]:
    """Return the next click, (point [2], label), into what is missing or what is too much, whichever is larger.

    Into its deepest pixel; with `rng`, half of the time into a random one. Without any error, into what is wanted.
    """
    missing, surplus = wanted & ~found, found & ~wanted
    label = FOREGROUND if missing.sum() >= surplus.sum() else BACKGROUND
    area = missing if label == FOREGROUND else surplus
    if not area.any():
        area, label = (wanted, FOREGROUND) if wanted.any() else (~wanted, BACKGROUND)
    return (click(area, rng) if rng is not None and rng.random() < 0.5 else middle(area)), label


def box(mask: Mask, rng: np.random.Generator | None = None, jitter: float = 0.1) -> Floats:
    """Return the box of a mask [h, w], left, top, right, bottom in pixels; off by up to `jitter` with `rng`."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    edges = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
    if rng is not None:
        size = np.array([edges[2] - edges[0], edges[3] - edges[1]] * 2, np.float32)
        edges = edges + np.clip(rng.normal(0, jitter / 2, 4), -jitter, jitter).astype(np.float32) * size
    return np.clip(edges, 0, [mask.shape[1], mask.shape[0]] * 2).astype(np.float32)

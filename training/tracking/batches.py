"""Takes a seed and a step, returns that step's drawn pictures or clips, and what is asked for. No weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from training import scenes
from training.scenes import COLOURS, SHAPES
from training.tracking import clips

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Masks = NDArray[np.bool_]

# The network's input, and the side of the masks that it learns from.
SIZE, MASK_SIDE = 160, 80
# Cells of the middle level of features.
CELLS = SIZE // 8

# Such a share of the clips has shapes of one kind and colour.
ALIKE = 0.5

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Pictures:
    """Pictures p, and of each as many objects: rows r = p * k, padded with repeated ones.

    images:   [p, 3, size, size]
    picture:  [r]
    masks:    [r, side, side] bool, in pixels as drawn
    coverage: [r, MASK_SIDE, MASK_SIDE], how much of each cell is covered
    colours, shapes: [p, CELLS, CELLS] int64, of what covers the most of each cell, by at least a half; -1 of others
    """

    images: Floats
    picture: NDArray[np.int64]
    masks: Masks
    coverage: Floats
    colours: NDArray[np.int64]
    shapes: NDArray[np.int64]


@dataclass(frozen=True)
class Clips:
    """Clips c of t frames, and of each as many objects: rows r = c * k.

    images:   [t, c, 3, size, size]
    clip:     [r]
    masks:    [t, r, side, side] bool; coverage: [t, r, MASK_SIDE, MASK_SIDE]; visible: [t, r] bool
    """

    images: Floats
    clip: NDArray[np.int64]
    masks: Masks
    coverage: Floats
    visible: NDArray[np.bool_]


def pictures(seed: int, step: int, count: int, objects: int) -> Pictures:
    """Return the pictures of `step`, `objects` of each."""
    rng = np.random.default_rng([seed, step, 3])
    drawn = [scenes.draw(seed, step * count + i) for i in range(count)]
    masks, picture = [], []
    for p, scene in enumerate(drawn):
        order = np.resize(rng.permutation(len(scene.shapes)), objects)
        masks += [scene.shapes[i].mask for i in order]
        picture += [p] * objects
    return Pictures(
        images=np.stack([still(scene.picture) for scene in drawn]),
        picture=np.array(picture),
        masks=np.stack(masks),
        coverage=np.stack([covered(mask, MASK_SIDE) for mask in masks]),
        colours=np.stack([_kinds(scene, [list(COLOURS).index(s.colour) for s in scene.shapes]) for scene in drawn]),
        shapes=np.stack([_kinds(scene, [SHAPES.index(s.shape) for s in scene.shapes]) for scene in drawn]),
    )


def videos(seed: int, step: int, count: int, frames: int, objects: int) -> Clips:
    """Return the clips of `step`: `frames` of each, every one or every other, forwards or backwards."""
    rng = np.random.default_rng([seed, step, 4])
    images, masks, visible, clip = [], [], [], []
    for i in range(count):
        stride = int(rng.integers(1, 3))
        first = int(rng.integers(clips.MOST_FRAMES - stride * (frames - 1)))
        shown = list(range(first, first + stride * frames, stride))[:: 1 if rng.random() < 0.5 else -1]
        drawn = clips.draw(seed, step * count + i, shown, alike=rng.random() < ALIKE)
        # What is asked for must be there in the first frame.
        chosen = np.resize(rng.permutation(np.flatnonzero(drawn.visible[0])), objects)
        images.append([frame(picture) for picture in drawn.frames])
        masks.append(drawn.masks[:, chosen])
        visible.append(drawn.visible[:, chosen])
        clip += [i] * objects
    all_masks = np.concatenate(masks, axis=1)
    return Clips(
        images=np.stack([np.stack(each) for each in images], axis=1),
        clip=np.array(clip),
        masks=all_masks,
        coverage=np.stack([[covered(mask, MASK_SIDE) for mask in row] for row in all_masks]),
        visible=np.concatenate(visible, axis=1),
    )


def still(picture: scenes.Pixels) -> Floats:
    """Return [3, size, size], as the family prepares pictures."""
    from PIL import Image

    from sam3_build.pipeline.images import network_input

    return network_input(Image.fromarray(picture), (SIZE, SIZE), MEAN, STD)


def frame(picture: scenes.Pixels) -> Floats:
    """Return [3, size, size], as the family prepares frames of clips."""
    from PIL import Image

    from sam3_build.pipeline.images import frame_input

    return frame_input(Image.fromarray(picture), (SIZE, SIZE), MEAN, STD)


def covered(mask: scenes.Mask, side: int) -> Floats:
    """Return [side, side] float32, how much of each cell a mask [h, w] covers."""
    import cv2

    shrunk = cv2.resize(mask.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(shrunk, np.float32)


def _kinds(scene: scenes.Scene, kinds: list[int]) -> NDArray[np.int64]:
    """Return [CELLS, CELLS]: the kind of the shape that covers at least half of a cell, or -1."""
    found = np.full((CELLS, CELLS), -1, np.int64)
    for shape, kind in zip(scene.shapes, kinds, strict=True):
        found[covered(shape.mask, CELLS) >= 0.5] = kind
    return found

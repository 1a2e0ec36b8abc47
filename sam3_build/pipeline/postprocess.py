"""What is done to found masks afterwards, when it is asked for: takes masks, returns fewer or cleaner ones. No torch.

mask:0.7, box:0.7, none             non-maximum suppression (NMS) by the IoU of masks or of boxes
open:3,close:5,smooth:1,fill:100    steps on each mask, in this order
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Flags = NDArray[np.bool_]
    Floats = NDArray[np.float32]

# What NMS compares.
MASK, BOX, NONE = "mask", "box", "none"

# The largest window of a step, in pixels: larger ones take minutes.
WIDEST = 255


@dataclass(frozen=True)
class Nms:
    """Of two that overlap by more than `iou`, that of the lower score goes. by: MASK or BOX."""

    by: str
    iou: float


@dataclass(frozen=True)
class Step:
    """One step on a mask (see STEPS). amount: pixels; of `smooth` the standard deviation, of `fill` an area."""

    name: str
    amount: float


def nms(text: str) -> Nms | None:
    """Return what a text such as `mask:0.7` asks for; None of `none`. BuildError when it is another."""
    if text.strip() == NONE:
        return None
    by, _, limit = (part.strip() for part in text.partition(":"))
    if by not in (MASK, BOX):
        hint = did_you_mean(by, (MASK, BOX, NONE))
        raise BuildError(f"nms: {text!r} is not mask:IOU, box:IOU or none{hint}")
    if not re.fullmatch(r"[0-9]*\.?[0-9]+", limit) or not 0 <= float(limit) <= 1:
        raise BuildError(f"nms: {text!r}: an IoU is from 0 to 1, such as {by}:0.7")
    return Nms(by, float(limit))


def steps(text: str) -> tuple[Step, ...]:
    """Return the steps that a text such as `open:3,fill:100` names. BuildError names the one that is wrong."""
    found = []
    for part in text.split(","):
        name, _, amount = (piece.strip() for piece in part.partition(":"))
        if name not in STEPS:
            raise BuildError(f"post: there is no step {part.strip()!r}{did_you_mean(name, STEPS)}")
        number = float(amount) if re.fullmatch(r"[0-9]{0,9}\.?[0-9]{1,9}", amount) else 0.0
        if not STEPS[name].takes(number):
            raise BuildError(f"post: {part.strip()!r}: {STEPS[name].amount}, such as {name}:{STEPS[name].example}")
        found.append(Step(name, number))
    return tuple(found)


def survivors(
    ious: NDArray[np.float64], scores: NDArray[np.float32], groups: NDArray[np.int64], limit: float
) -> NDArray[np.int64]:
    """Return the positions, ascending, that greedy NMS keeps: best score first, each group for itself.

    ious: [n, n]; scores, groups: [n]. Of equal scores the first is kept
    """
    import numpy as np

    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable").tolist():
        if not any(groups[i] == groups[j] and ious[i, j] > limit for j in kept):
            kept.append(i)
    return np.array(sorted(kept), np.int64)


def cleaned(mask: Flags, asked: Sequence[Step]) -> Flags:
    """Return a mask [height, width] after all steps, one after another."""
    for step in asked:
        mask = STEPS[step.name].run(mask, step.amount)
    return mask


def _opened(mask: Flags, size: float) -> Flags:
    """Return it without what is narrower than an ellipse of this size."""
    import cv2

    return _morphed(mask, cv2.MORPH_OPEN, size)


def _closed(mask: Flags, size: float) -> Flags:
    """Return it with gaps that are narrower than an ellipse of this size."""
    import cv2

    return _morphed(mask, cv2.MORPH_CLOSE, size)


def _morphed(mask: Flags, operation: int, size: float) -> Flags:
    import cv2
    import numpy as np

    element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (int(size), int(size)))
    found: Flags = cv2.morphologyEx(mask.astype(np.uint8), operation, element).astype(bool)
    return found


def _smoothed(mask: Flags, deviation: float) -> Flags:
    """Return where the blurred mask is above a half."""
    import cv2
    import numpy as np

    blurred = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), deviation, borderType=cv2.BORDER_REPLICATE)
    found: Flags = blurred > 0.5
    return found


def _filled(mask: Flags, area: float) -> Flags:
    """Return it without holes of at most so many pixels. A hole touches no edge of the picture."""
    import cv2
    import numpy as np

    height, width = mask.shape
    # What surrounds a hole may be joined by corners; a hole then is joined by edges alone.
    _, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    left, top, wide, high, pixels = stats.T
    inside = (left > 0) & (top > 0) & (left + wide < width) & (top + high < height)
    small = inside & (pixels <= area)
    small[0] = False  # the mask itself
    found: Flags = mask | small[labels]
    return found


# The logit of what was a hole, and, below 0, of what was a speck.
MENDED = 0.1


def mended(logits: Floats, area: int) -> Floats:
    """Return mask logits [height, width] without holes and specks of at most `area` pixels, joined by corners too.

    A speck is smaller than the rest of the mask, so that small objects stay; a hole may touch an edge of the picture.
    Source: `fill_holes_in_mask_scores` of transformers' Sam3VideoModel (5.23), after Meta's code, which need a GPU
    kernel for it.
    """
    import numpy as np

    filled: Floats = np.where(_small(logits <= 0, area), np.float32(MENDED), logits)
    inside = filled > 0
    return np.where(_small(inside, min(area, int(inside.sum()) // 2)), np.float32(-MENDED), filled)


def _small(flags: Flags, area: int) -> Flags:
    """Return what lies in components of at most `area` pixels."""
    import cv2
    import numpy as np

    _, labels, stats, _ = cv2.connectedComponentsWithStats(flags.astype(np.uint8), connectivity=8)
    small = stats[:, cv2.CC_STAT_AREA] <= area
    small[0] = False  # what is not set
    found: Flags = small[labels]
    return found


@dataclass(frozen=True)
class _Kind:
    """A step: what it does, which amounts it takes, and how that is said."""

    run: Callable[[Flags, float], Flags]
    takes: Callable[[float], bool]
    amount: str
    example: str


_WINDOW = f"the size is an odd number of pixels, from 1 to {WIDEST}"


def _is_window(size: float) -> bool:
    return size % 2 == 1 and size <= WIDEST  # an even window would move the mask by half a pixel


STEPS: Mapping[str, _Kind] = {
    "open": _Kind(_opened, _is_window, _WINDOW, "3"),
    "close": _Kind(_closed, _is_window, _WINDOW, "5"),
    "smooth": _Kind(
        _smoothed,
        lambda deviation: 0 < deviation <= WIDEST / 6,
        f"the standard deviation is above 0 and at most {WIDEST // 6} pixels",
        "1",
    ),
    "fill": _Kind(_filled, lambda area: area >= 1, "the area is at least 1 pixel", "100"),
}

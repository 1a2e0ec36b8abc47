"""What a user asks of a picture: takes texts and boxes, returns prompts of a pipeline, one for each text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError
from sam3_build.pipeline.prompts import Box, taken

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Boxes = Sequence[Sequence[float]] | NDArray[np.generic]


def boxes_of(edges: Boxes | None, labels: Sequence[int] | None) -> tuple[Box, ...]:
    """Return boxes given as left, top, right, bottom in pixels.

    labels: 1 is meant, 0 is not; without labels all are meant
    """
    listed = [] if edges is None else [list(map(float, box)) for box in edges]
    if labels is not None and len(labels) != len(listed):
        raise BuildError(f"there are {len(listed)} boxes and {len(labels)} box_labels; give one for each")
    found = []
    for i, box in enumerate(listed):
        if len(box) != 4 or not all(map(math.isfinite, box)):
            raise BuildError(f"boxes[{i}] is {box}; a box is left, top, right, bottom in pixels")
        x0, y0, x1, y1 = box
        if x1 <= x0 or y1 <= y0:
            raise BuildError(f"boxes[{i}] is {box}, which has no area: right and bottom must be beyond left and top")
        label = 1 if labels is None else labels[i]
        if label not in (0, 1):
            raise BuildError(f"box_labels[{i}] is {label!r}; 1 is meant, 0 is not meant")
        found.append(Box(int(label), x0, y0, x1 - x0, y1 - y0))
    return tuple(found)


def prompts_of(kind: type, text: str | Sequence[str] | None, boxes: tuple[Box, ...]) -> list[object]:
    """Return a prompt for each text, every one with all boxes; of boxes alone, one. kind: `Pipeline.prompts`."""
    texts = [text] if isinstance(text, str) else list(text or ())
    for key, value in (("text", texts), ("boxes", boxes)):
        if value and key not in taken(kind):
            raise BuildError(f"this model takes no {key}, only {', '.join(taken(kind))}")
    for i, words in enumerate(texts):
        if not words.strip():
            raise BuildError(f"text[{i}] is empty: say what to look for")
    if not texts and not boxes:
        raise BuildError("nothing is asked for: give text, boxes or both")
    more = {"boxes": boxes} if boxes else {}
    return [kind(text=words, **more) for words in texts] or [kind(**more)]

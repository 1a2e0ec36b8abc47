"""Takes the decoder's outputs for one picture and its size, returns the instances found, in its pixels. No torch.

SAM 3's conventions: a query's score is sigmoid(logit) times sigmoid(presence), where presence says whether the picture
holds anything of what was asked for; queries score above the threshold or are dropped; mask logits, not masks, are
brought to the picture's size, bilinearly, and positive ones belong to the instance. Nothing is suppressed afterwards:
the model gives each object one query.

Every family that finds instances has this module. It reads the outputs of its layout's last component, and gives

    find(outputs, size, threshold)   Instances
    read_picture(path)               the picture as the family sees it, from which sizes are taken
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.families.sam3_image import pictures

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Instances:
    """What was found in one picture, in the order of the model's queries.

    queries:  [n] int64, which query each instance is
    scores:   [n] float32, 0 to 1
    boxes:    [n, 4] float32, left, top, right, bottom in pixels, clipped to the picture
    masks:    [n, height, width] bool
    presence: 0 to 1, whether anything asked for is there at all; no score is higher
    """

    queries: NDArray[np.int64]
    scores: Floats
    boxes: Floats
    masks: NDArray[np.bool_]
    presence: float


def find(outputs: Mapping[str, NDArray[np.generic]], size: tuple[int, int], threshold: float) -> Instances:
    """Return the instances of one row.

    outputs: pred_masks [queries, h, w] and pred_logits [queries], logits; pred_boxes [queries, 4], xyxy relative to the
             picture; presence_logits [1]. All float32 and finite
    size:    height and width of the picture in pixels
    """
    import numpy as np

    logits, masks, boxes, presence_logits = (
        outputs[name].astype(np.float32, copy=False)
        for name in ("pred_logits", "pred_masks", "pred_boxes", "presence_logits")
    )
    presence = _sigmoid(presence_logits)
    scores = _sigmoid(logits) * presence
    (kept,) = np.nonzero(scores > threshold)
    height, width = size
    edges = np.array([width, height, width, height], np.float32)
    inside = np.zeros((len(kept), height, width), np.bool_)
    for i, query in enumerate(kept):
        inside[i] = enlarged(masks[query], size) > 0
    return Instances(kept, scores[kept], np.clip(boxes[kept] * edges, 0, edges), inside, float(presence[0]))


def enlarged(logits: Floats, size: tuple[int, int]) -> Floats:
    """Return `logits` [h, w] at `size` (height, width): bilinear between the centres of cells, as torch's interpolate
    with align_corners=False; nothing is smoothed where the picture is the smaller one.
    """
    import cv2
    import numpy as np

    height, width = size
    resized: Floats = cv2.resize(np.ascontiguousarray(logits), (width, height), interpolation=cv2.INTER_LINEAR)
    return resized


def _sigmoid(logits: Floats) -> Floats:
    import numpy as np

    with np.errstate(over="ignore"):  # exp of a large number is infinity, and one over that is 0, as it should be
        return np.float32(1) / (np.float32(1) + np.exp(-logits))


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Return the picture [height, width, 3], RGB, turned as viewers show it."""
    import numpy as np

    return np.asarray(pictures.read(path))

"""Takes the decoder's outputs for one picture and its size, returns the instances found, in its pixels. No torch.

SAM 3's conventions: a query's score is sigmoid(logit) times sigmoid(presence), where presence says whether the picture
holds anything of what was asked for; queries score above the threshold or are dropped; mask logits, not masks, are
brought to the picture's size, bilinearly, and positive ones belong to the instance. Nothing is suppressed afterwards:
the model gives each object one query.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sam3_build.pipeline.instances import Instances
from sam3_build.pipeline.masks import enlarged

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]


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
    return Instances(scores[kept], np.clip(boxes[kept] * edges, 0, edges), inside, kept, float(presence[0]))


def _sigmoid(logits: Floats) -> Floats:
    import numpy as np

    with np.errstate(over="ignore"):  # exp of a large number is infinity, and one over that is 0, as it should be
        return np.float32(1) / (np.float32(1) + np.exp(-logits))

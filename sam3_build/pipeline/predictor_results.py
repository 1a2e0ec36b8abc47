"""Takes what loops and the mask decoder give, returns tracks and masks at the size of frames and pictures. No torch.

Mask logits are brought to that size, bilinearly; positive ones belong to the object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sam3_build.pipeline.masks import Masks, enlarged, fed_back
from sam3_build.pipeline.tracks import Tracks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def find(outputs: Mapping[str, NDArray[np.generic]], size: tuple[int, int], threshold: float) -> Tracks | Masks:
    """Return the tracks of one clip, or the mask of one prompt on a picture.

    outputs: of a clip ids [n]; masks [frames, n, h, w], logits; visible [frames, n], logits; scores [frames, n].
             Of a prompt pred_masks [h, w] and object_score_logits [1], logits; iou_scores [1]; choice_scores
             [candidates]
    size:    height and width of the frames, or of the picture, in pixels
    """
    import numpy as np

    floats = {name: array.astype(np.float32, copy=False) for name, array in outputs.items() if name != "ids"}
    if "pred_masks" in floats:
        logits, visible = floats["pred_masks"], bool(floats["object_score_logits"][0] > 0)
        inside, choice = (enlarged(logits, size) > 0)[None], floats.get("choice_scores")
        return Masks(inside, floats["iou_scores"], 0, visible, fed_back(logits[None]), choice)
    masks = np.zeros((*floats["masks"].shape[:2], *size), np.bool_)
    for frame, objects in zip(masks, floats["masks"], strict=True):
        for inside, logits in zip(frame, objects, strict=True):
            inside[:] = enlarged(logits, size) > 0
    return Tracks(outputs["ids"].astype(np.int64), masks, floats["visible"] > 0, floats["scores"])

"""Takes what the mask decoder gives of one prompt, returns its masks at the size of the picture. No torch.

Mask logits are brought to that size, bilinearly; positive ones belong to the object. Of the three masks that one whose
predicted IoU is best is the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sam3_build.pipeline.masks import Masks, enlarged, fed_back

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


# What decoders call masks and their predicted IoUs: one of prompts of several objects, and one of a prompt per row.
OF_OBJECTS, OF_ROWS = ("pred_masks", "iou_scores"), ("masks", "iou_predictions")


def find(outputs: Mapping[str, NDArray[np.generic]], size: tuple[int, int], threshold: float) -> Masks:
    """Return the masks of one row, which has one object.

    outputs: pred_masks [1, masks, h, w] and object_score_logits [1, 1], logits; iou_scores [1, masks]; or
             masks [masks, h, w] and object_score_logits [1]; iou_predictions [masks]
    size:    height and width of the picture in pixels
    """
    import numpy as np

    names = OF_OBJECTS if OF_OBJECTS[0] in outputs else OF_ROWS
    masks, scores = (outputs[name].astype(np.float32, copy=False) for name in names)
    masks, scores = masks.reshape(-1, *masks.shape[-2:]), scores.reshape(-1)
    inside = np.stack([enlarged(mask, size) > 0 for mask in masks])
    is_visible = outputs["object_score_logits"].astype(np.float32, copy=False).item() > 0
    return Masks(inside, scores, int(scores.argmax()), is_visible, fed_back(masks))

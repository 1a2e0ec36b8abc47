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


def find(outputs: Mapping[str, NDArray[np.generic]], size: tuple[int, int], threshold: float) -> Masks:
    """Return the masks of one row, which has one object.

    outputs: pred_masks [1, masks, h, w] and object_score_logits [1, 1], logits; iou_scores [1, masks]
    size:    height and width of the picture in pixels
    """
    import numpy as np

    masks, scores, visible = (
        outputs[name][0].astype(np.float32, copy=False) for name in ("pred_masks", "iou_scores", "object_score_logits")
    )
    inside = np.stack([enlarged(mask, size) > 0 for mask in masks])
    return Masks(inside, scores, int(scores.argmax()), bool(visible[0] > 0), fed_back(masks))

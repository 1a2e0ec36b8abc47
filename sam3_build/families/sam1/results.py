"""Takes the decoder's outputs for one prompt and a picture's size, returns its masks at that size. No torch.

As Meta's `mask_postprocessing`: mask logits are brought to the size of the network's input, bilinearly, cut to the part
that the picture fills, and brought to the picture's size, bilinearly again. Positive ones belong to the object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sam3_build.families.sam1.family import FINER, PATCH
from sam3_build.pipeline.images import fitted_size
from sam3_build.pipeline.masks import Masks, enlarged

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]


def find(outputs: Mapping[str, NDArray[np.generic]], size: tuple[int, int], threshold: float) -> Masks:
    """Return the masks of one row; of several the best but for the first is taken, which is that of precise prompts.

    outputs: iou_predictions [masks]; low_res_masks [masks, h, w], logits. float32 and finite
    size:    height and width of the picture in pixels
    """
    import numpy as np

    scores = outputs["iou_predictions"].astype(np.float32, copy=False)
    logits = outputs["low_res_masks"].astype(np.float32, copy=False)
    chosen = 1 + int(scores[1:].argmax()) if len(scores) > 1 else 0
    return Masks(np.stack([full_size(mask, size) > 0 for mask in logits]), scores, chosen, logits=logits)


def full_size(logits: Floats, size: tuple[int, int]) -> Floats:
    """Return mask logits [h, w] of the padded picture at the size of the picture."""
    side = logits.shape[0] * PATCH // FINER
    height, width = fitted_size(size, side)
    return enlarged(enlarged(logits, (side, side))[:height, :width], size)

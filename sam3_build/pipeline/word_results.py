"""Takes what `word_tracking` finds, returns tracks at the size of frames. No torch.

As transformers' Sam3VideoProcessor (5.23): mask logits are brought to that size, bilinearly, and positive ones belong
to the object; of two objects of a text a pixel is the one's that the tracker is surer of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sam3_build.pipeline.masks import enlarged
from sam3_build.pipeline.overlaps import apart
from sam3_build.pipeline.tracks import Tracks

if TYPE_CHECKING:
    from sam3_build.pipeline.chain import Arrays


def find(outputs: Arrays, size: tuple[int, int]) -> Tracks:
    """Return the tracks of one clip. outputs: see `word_tracking.found`; size: height and width of frames in pixels."""
    import numpy as np

    logits, visible, sure = (outputs[name].astype(np.float32) for name in ("masks", "visible", "tracker_scores"))
    masks, seen = np.zeros((*logits.shape[:2], *size), np.bool_), visible > 0
    for frame, (inside, shown) in enumerate(zip(masks, seen, strict=True)):
        for i in np.flatnonzero(shown):
            inside[i] = enlarged(logits[frame, i], size) > 0
        shown &= inside.any((1, 2))
        inside[:] = apart(inside, outputs["texts"].astype(np.int64), sure[frame])
    scores = np.broadcast_to(outputs["scores"].astype(np.float32), seen.shape)
    return Tracks(outputs["ids"].astype(np.int64), masks, seen, scores, outputs["texts"].astype(np.int64))

"""Says which detections of a frame are objects that are followed already, and which are new. No torch.

Source: `_associate_det_trk` of transformers' Sam3VideoModel (5.23), which follows Meta's predictor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sam3_build.pipeline.ious import mask_ious
from sam3_build.pipeline.postprocess import survivors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sam3_build.pipeline.chain import Arrays
    from sam3_build.pipeline.word_settings import WordSettings

    Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Detections:
    """What texts find in a frame: masks [n, side, side] logits, scores [n] 0 to 1, texts [n] positions of the texts."""

    masks: Floats
    scores: Floats
    texts: NDArray[np.int64]

    @classmethod
    def joined(cls, parts: Sequence[Detections], side: int) -> Detections:
        """Return the detections of several texts, text by text; side: of the masks, where there is no text."""
        import numpy as np

        masks, scores = np.zeros((0, side, side), np.float32), np.zeros(0, np.float32)
        return cls(
            np.concatenate([masks, *(part.masks for part in parts)]),
            np.concatenate([scores, *(part.scores for part in parts)]),
            np.concatenate([np.zeros(0, np.int64), *(part.texts for part in parts)]),
        )


def detections(outputs: Arrays, text: int, settings: WordSettings) -> Detections:
    """Return what a detector finds of one text: queries above the threshold, without those that overlap better ones.

    outputs: of the decoder, one row: pred_masks [1, queries, side, side], pred_logits [1, queries],
             presence_logits [1, 1]
    """
    import numpy as np

    logits, presence = (outputs[name][0].astype(np.float64).clip(-80) for name in ("pred_logits", "presence_logits"))
    scores = (1 / (1 + np.exp(-logits)) / (1 + np.exp(-presence))).astype(np.float32)
    (kept,) = np.nonzero(scores > settings.score_threshold_detection)
    masks = outputs["pred_masks"][0][kept].astype(np.float32)
    if settings.det_nms_thresh > 0 and len(kept):
        inside = masks > 0
        one_group = np.zeros(len(kept), np.int64)
        best = survivors(mask_ious(inside, inside), scores[kept], one_group, settings.det_nms_thresh)
        kept, masks = kept[best], masks[best]
    return Detections(masks, scores[kept], np.full(len(kept), text, np.int64))


@dataclass(frozen=True)
class Objects:
    """Objects as they were followed into a frame: their ids, masks [n, side, side] logits, texts [n]."""

    ids: Sequence[int]
    masks: Floats
    texts: NDArray[np.int64]


@dataclass(frozen=True)
class Matches:
    """Which detections are which objects.

    new:       positions of detections that become objects
    matched:   detection -> ids of all objects that it is
    unmatched: ids of objects with pixels that no detection is
    empty:     ids of objects without pixels
    confirmed: id -> the detection, of a high score and IoU, of which this object is the nearest
    """

    new: tuple[int, ...]
    matched: Mapping[int, tuple[int, ...]]
    unmatched: tuple[int, ...]
    empty: tuple[int, ...]
    confirmed: Mapping[int, int]


def associate(found: Detections, objects: Objects, settings: WordSettings) -> Matches:
    """Return which detections are which objects: of one text, by the IoU of masks.

    One detection may be several objects, which then are duplicates. While nothing is followed, all detections are new.
    """
    import numpy as np

    if not len(objects.ids):
        return Matches(tuple(range(len(found.scores))), {}, (), (), {})
    inside = objects.masks > 0
    has_pixels = inside.any((1, 2))
    ious = mask_ious(found.masks > 0, inside)
    ious[found.texts[:, None] != objects.texts[None]] = 0
    unmatched = has_pixels & ~(ious >= settings.trk_assoc_iou_thresh).any(0)
    same = ious >= settings.assoc_iou_thresh
    new = (found.scores >= settings.new_det_thresh) & ~same.any(1)
    sure = (found.scores >= settings.high_conf_thresh) & ~new & (ious.max(1) >= settings.high_iou_thresh)
    ids = np.array(objects.ids, np.int64)
    return Matches(
        new=tuple(np.flatnonzero(new).tolist()),
        matched={i: tuple(ids[row].tolist()) for i, row in enumerate(same)},
        unmatched=tuple(ids[unmatched].tolist()),
        empty=tuple(ids[~has_pixels].tolist()),
        confirmed={int(ids[ious[i].argmax()]): i for i in np.flatnonzero(sure).tolist()},
    )


def within_limit(new: Sequence[int], scores: Floats, followed: int, limit: int) -> tuple[int, ...]:
    """Return the new detections, those of the best scores, that are followed at most beside `followed` objects.

    All of them in their order; where some go, by falling scores.
    """
    import numpy as np

    room = max(0, limit - followed)
    if len(new) <= room:
        return tuple(new)
    order = np.argsort(-scores[list(new)], kind="stable")[:room]
    return tuple(new[i] for i in order.tolist())

"""What is kept of all that a model finds: takes it, drops what overlaps or is too many, returns cleaned masks."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sam3_build.errors import BuildError
from sam3_build.pipeline import postprocess
from sam3_build.pipeline.ious import box_ious, mask_ious
from sam3_build.pipeline.postprocess import BOX, Nms, Step
from sam3_build.runtime.found import Found


@dataclass(frozen=True)
class Keep:
    """What is asked for. threshold: of scores; the manifest's when it is None. most: how many of a picture.

    multimask: of a prompt that is answered by several masks to choose from, all
    """

    threshold: float | None = None
    most: int | None = None
    nms: Nms | None = None
    steps: tuple[Step, ...] = ()
    multimask: bool = False

    @classmethod
    def of(
        cls,
        threshold: float | None = None,
        max_found: int | None = None,
        nms: str | None = None,
        post: str | None = None,
        *,
        multimask: bool = False,
    ) -> Keep:
        """Return it, checked. nms, post: as `pipeline/postprocess.py` reads them. BuildError says what is wrong."""
        if threshold is not None and not 0 <= threshold <= 1:
            raise BuildError(f"threshold is {threshold}; a score is from 0 to 1")
        if max_found is not None and max_found < 1:
            raise BuildError(f"max_found is {max_found}; keep one at least")
        return cls(
            threshold,
            max_found,
            None if nms is None else postprocess.nms(nms),
            () if post is None else postprocess.steps(post),
            multimask,
        )

    def of_picture(self, found: Found) -> Found:
        """Return what is left: above the threshold, after NMS within each prompt, of the best scores, cleaned.

        An instance of whose mask the steps leave nothing is left out. Boxes stay as the model gave them.
        """
        import numpy as np

        if self.threshold is not None:  # of instances `find` has taken those already; a prompt's own mask always comes
            found = found.picked(np.flatnonzero(found.scores > self.threshold))
        if self.nms:
            ious = box_ious(found.boxes, found.boxes) if self.nms.by == BOX else mask_ious(found.masks, found.masks)
            found = found.picked(postprocess.survivors(ious, found.scores, found.prompts, self.nms.iou))
        if self.most is not None and len(found) > self.most:
            found = found.picked(np.sort(np.argsort(-found.scores, kind="stable")[: self.most]))
        if self.steps and len(found):
            masks = np.stack([postprocess.cleaned(mask, self.steps) for mask in found.masks])
            found = replace(found, masks=masks).picked(np.flatnonzero(masks.any((1, 2))))
        return found

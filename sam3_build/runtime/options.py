"""What `segment` takes: the names of its options in Python, and what they ask for, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from sam3_build.runtime import scales
from sam3_build.runtime.ask import Ask
from sam3_build.runtime.keep import Keep
from sam3_build.runtime.refine import Refine

if TYPE_CHECKING:
    from sam3_build.runtime.ask import Labels, Numbers, Previous, Texts


class Prompts(TypedDict, total=False):
    """What is meant, beside a text, in pixels of the picture as viewers show it.

    boxes:  [n, 4], left, top, right, bottom
    points: [n, 2], x and y
    box_labels, point_labels: 1 is meant, which all are without them, 0 is not meant
    mask:   a picture file, as large as the picture; what is not 0 is meant
    """

    boxes: Numbers | None
    box_labels: Labels | None
    points: Numbers | None
    point_labels: Labels | None
    mask: str | Path | None


class Corrected(Prompts, total=False):
    """Prompts, and `previous`: what was found before, or its logits, [objects, h, w] float32, one mask an object."""

    previous: Previous | None


class Options(Corrected, total=False):
    """What `segment` takes beside a picture and a text: prompts, how hard it tries, and what is kept of what is found.

    threshold: scores above it; the manifest's without
    max_found: so many, those of the best scores
    nms:  `mask:0.7` or `box:0.7`: of two instances of a prompt that overlap by more, the one of the lower score goes
    post: `open:3,close:5,smooth:1,fill:100`: what is done to each mask, in this order, in pixels
    multimask: whether all masks that the model gives of a prompt are kept, not only the one that it takes
    refine: how often a mask is fed back at most, or `3,by:stability,score:0.9,iou:0.8` (see `refine.py`)
    scales: the picture at each of these, fused by predicted quality (see `scales.py`)
    """

    threshold: float | None
    max_found: int | None
    nms: str | None
    post: str | None
    multimask: bool
    refine: int | str | None
    scales: Sequence[float] | None


@dataclass(frozen=True)
class Effort:
    """How hard an answer of one mask is worked for: nothing else than one run without any."""

    refine: Refine | None = None
    scales: tuple[float, ...] = ()

    @classmethod
    def of(cls, refine: int | str | None = None, given: Sequence[float] | None = None) -> Effort:
        """Return it, checked. BuildError says what is wrong."""
        return cls(None if refine is None else Refine.of(str(refine)), () if given is None else scales.scales(given))


@dataclass(frozen=True)
class Request:
    """What is asked of one picture, of each of several objects or of all at once, and what is made of the answers."""

    asks: Sequence[Ask]
    keep: Keep
    effort: Effort

    @classmethod
    def of(
        cls,
        text: Texts | None = None,
        *,
        threshold: float | None = None,
        max_found: int | None = None,
        nms: str | None = None,
        post: str | None = None,
        multimask: bool = False,
        refine: int | str | None = None,
        scales: Sequence[float] | None = None,
        **prompts: Unpack[Corrected],
    ) -> Request:
        """Return it, checked. BuildError names the option that is wrong."""
        keep = Keep.of(threshold, max_found, nms, post, multimask=multimask)
        return cls((Ask.of(text, **prompts),), keep, Effort.of(refine, scales))

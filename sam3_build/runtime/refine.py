"""Refinement: takes answers of one mask each and what asks again, feeds masks back while they get better."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from sam3_build.errors import BuildError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sam3_build.pipeline.masks import Masks

    Floats = NDArray[np.float32]

# How far the threshold of logits is moved both ways, to see how much of a mask that moves.
OFFSET = 1.0

# The largest number of rounds; an answer that still rises then goes in circles.
MOST = 100

IOU, STABILITY = "iou", "stability"


@dataclass(frozen=True)
class Refine:
    """How often a mask is fed back at most, and when it is good enough.

    by:   what must rise: IOU, which the model predicts, or STABILITY (see `stability`)
    score: stop where that is reached; iou: stop where a mask overlaps the one before it by so much
    """

    rounds: int
    by: str = IOU
    score: float = math.inf
    iou: float = math.inf

    @classmethod
    def of(cls, text: str) -> Self:
        """Return what a text such as `3` or `3,by:stability,score:0.9,iou:0.8` asks for. BuildError when it is none."""
        first, *parts = (part.strip() for part in text.split(","))
        if not first.isdecimal() or not 1 <= int(first) <= MOST:
            raise BuildError(f"refine: {first!r} is no number of rounds, from 1 to {MOST}, such as 3")
        given: dict[str, str] = {}
        for part in parts:
            name, _, value = (piece.strip() for piece in part.partition(":"))
            if name not in ("by", "score", "iou"):
                raise BuildError(f"refine: there is no {name!r}{did_you_mean(name, ('by', 'score', 'iou'))}")
            given[name] = value
        by = given.get("by", IOU)
        if by not in QUALITY:
            raise BuildError(f"refine: by:{by} is neither by:{IOU} nor by:{STABILITY}{did_you_mean(by, QUALITY)}")
        return cls(int(first), by, _limit("score", given.get("score")), _limit("iou", given.get("iou")))

    def quality(self, answer: Masks) -> float:
        """Return how good the mask that is taken is; 0 of an object that is not visible."""
        return QUALITY[self.by](answer) if answer.visible else 0.0


def refined(
    first: Sequence[Masks], again: Callable[[Sequence[int], Sequence[Floats]], Sequence[Masks]], how: Refine
) -> list[Masks]:
    """Return each answer, or the best that came of feeding its mask back.

    again: (positions among `first`, the logits of each one's mask) -> its new answers
    An answer that is no better than the one before it is dropped, and ends it.
    """
    best = list(first)
    rising = [i for i, answer in enumerate(best) if how.quality(answer) < how.score]
    for _ in range(how.rounds):
        if not rising:
            break
        rising = _round(best, rising, again(rising, [_taken(best[i]) for i in rising]), how)
    return best


def _round(best: list[Masks], rising: Sequence[int], found: Sequence[Masks], how: Refine) -> list[int]:
    """Put what is better into `best`; return the positions that are to be asked again."""
    on = []
    for i, answer in zip(rising, found, strict=True):
        before, quality = best[i], how.quality(answer)
        if quality > how.quality(before):
            best[i] = answer
            if quality < how.score and _overlap(answer, before) < how.iou:
                on.append(i)
    return on


def stability(answer: Masks) -> float:
    """Return the IoU of the mask at a threshold that is OFFSET above 0, and as much below.

    Source: `calculate_stability_score` of facebookresearch/segment-anything.
    """
    logits = _taken(answer)
    return float((logits > OFFSET).sum() / max(1, (logits > -OFFSET).sum()))


def _overlap(one: Masks, other: Masks) -> float:
    a, b = one.masks[one.chosen], other.masks[other.chosen]
    return float((a & b).sum() / max(1, (a | b).sum()))


def _taken(answer: Masks) -> Floats:
    if answer.logits is None:
        raise BuildError("this model gives no logits of masks, so that none is fed back")
    taken: Floats = answer.logits[answer.chosen]
    return taken


def _limit(name: str, text: str | None) -> float:
    if text is None:
        return math.inf
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise BuildError(f"refine: {name}:{text} is no number above 0 and at most 1")
    return value


QUALITY: Mapping[str, Callable[[Masks], float]] = {
    IOU: lambda answer: float(answer.scores[answer.chosen]),
    STABILITY: stability,
}

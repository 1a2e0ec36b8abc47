"""Takes the masks that PyTorch and a target give of prompts, returns how they differ as a user sees it.

Prompt i owns mask i, so that nothing is paired.

    mask_iou   the smallest IoU of the masks taken, at the picture's own size
    score      the largest difference of the scores of a prompt's masks, also of those that are not taken
    choice     in how many prompts another of several masks is taken; near ties do not count
    visible    in how many prompts the two disagree whether the object is in the picture
    nonfinite  how many values of the target's outputs are NaN or Inf; such a prompt is left out of all the above
    incomparable  in how many prompts an output has another shape or dtype

Where an object is visible on one side alone or on neither, its masks and scores are not compared: a model gives some
constant for them. Where the two take different masks of nearly equal scores, the one that the reference takes is
compared. A network that gives but the mask that it takes has no other one: such a prompt is left out. `ties` names
these prompts. Two empty masks have no overlap to compare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sam3_build.compare import choices
from sam3_build.compare.outputs import PictureRow, SoundOutputs, listed
from sam3_build.pipeline.ious import mask_ious
from sam3_build.pipeline.masks import Masks
from sam3_build.spec import Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

OF_VISIBLE = ("mask_iou", "score", "choice")


@dataclass(frozen=True)
class ComparedMasks:
    """How the masks of one prompt agree.

    mask_iou: None where both are empty; score: None, as the others, where the object is not visible on both sides
    tied:     whether another mask is taken, of a score as good; what there is not on both sides is not compared
    taken:    which masks the two take, of those that there were to choose from
    """

    agree: bool
    mask_iou: float | None = None
    score: float | None = None
    same_choice: bool = True
    tied: bool = False
    taken: tuple[int, int] = (0, 0)


def compared(expected: Masks, actual: Masks) -> ComparedMasks:
    """Return how two answers to one prompt agree; they have equally many masks, of equal size."""
    import numpy as np

    if not (expected.visible and actual.visible):
        return ComparedMasks(expected.visible == actual.visible)
    scores, own, other = _choices(expected, actual)
    tied = choices.ties(scores, own, other)
    found = ComparedMasks(agree=True, same_choice=own == other or tied, tied=tied, taken=(own, other))
    if tied and expected.choice_scores is not None:
        return found
    apart = float(np.abs(expected.scores.astype(np.float64) - actual.scores).max())
    masks = expected.masks[[expected.chosen]], actual.masks[[expected.chosen if tied else actual.chosen]]
    iou = float(mask_ious(*masks)[0, 0]) if any(mask.any() for mask in masks) else None
    return replace(found, mask_iou=iou, score=apart)


def _choices(expected: Masks, actual: Masks) -> tuple[Array, int, int]:
    """Return the reference's scores of the masks to choose from, and which of them each side takes."""
    own, other = expected.choice_scores, actual.choice_scores
    if own is None or other is None:
        return expected.scores, expected.chosen, actual.chosen
    return own, int(own.argmax()), int(choices.taken(own[None], other[None])[0])


@dataclass
class MaskStatistics:
    """Accumulates what two sides give, prompt by prompt."""

    prompts: list[dict[str, Json]] = field(default_factory=list)
    compared: int = 0
    seen: int = 0
    seen_by_both: int = 0
    other_choices: int = 0
    disagreeing: int = 0
    outputs: SoundOutputs = field(default_factory=SoundOutputs)
    ties: dict[str, str] = field(default_factory=dict)
    worst: dict[str, float] = field(default_factory=dict)
    where: dict[str, list[str]] = field(default_factory=dict)

    def comparable(self, place: PictureRow, expected: Mapping[str, Array], actual: Mapping[str, Array]) -> bool:
        """Tell whether the outputs of one row can be compared at all; remember why not."""
        problem = self.outputs.problem(str(place), expected, actual)
        if problem:
            self.prompts.append({**place.document(), "problem": problem})
        return problem is None

    def add(self, place: PictureRow, expected: Masks, actual: Masks) -> ComparedMasks:
        """Take in both sides' answers to one prompt."""
        found = compared(expected, actual)
        self.compared += 1
        self.seen += expected.visible
        self.seen_by_both += expected.visible and actual.visible
        if not found.agree:
            self.disagreeing += 1
            self._note("visible", f"the object of {place} is {'lost' if expected.visible else 'new'}")
        if not found.same_choice:
            self.other_choices += 1
            self._note("choice", f"{place} {choices.worded(*_choices(expected, actual))}")
        if found.tied:
            which = "neither is" if found.score is None else "the expected one is"
            takes = choices.worded(*_choices(expected, actual))
            self.ties[str(place)] = f"{takes}; the two nearly tie, and {which} compared"
        self._worst("mask_iou", found.mask_iou, min, f"mask {actual.chosen} of {place}")
        self._worst("score", found.score, max, str(place))
        self.prompts.append(
            {
                **place.document(),
                "expected": _described(expected),
                "actual": _described(actual),
                "mask_iou": found.mask_iou,
                "score": found.score,
                "tied": found.tied,
            }
        )
        return found

    def _worst(self, metric: str, value: float | None, worse: Callable[..., float], where: str) -> None:
        before = self.worst.get(metric)
        if value is not None and (before is None or (value != before and worse(value, before) == value)):
            self.worst[metric], self.where[metric] = value, [where]

    def _note(self, metric: str, text: str) -> None:
        self.where.setdefault(metric, []).append(text)

    def metrics(self) -> dict[str, float | None]:
        """Return the metrics of the module's docstring; None for what could not be measured."""
        return {
            "mask_iou": self.worst.get("mask_iou"),
            "score": self.worst.get("score"),
            "choice": self.other_choices if self.seen_by_both else None,
            "visible": self.disagreeing if self.compared else None,
            "nonfinite": self.outputs.nonfinite,
            "incomparable": len(self.outputs.problems),
        }

    def summary(self) -> dict[str, Json]:
        """Return everything measured, in the shape of a tensor's statistics: what the judge reads of an output."""
        metrics = self.metrics()
        nothing = (
            "the reference sees no object in any sample, so nothing can be compared; add a prompt on something that "
            "the model sees"
        )
        if self.seen_by_both and self.seen_by_both == len(self.ties):
            nothing = "in all prompts another mask is taken that nearly ties"
        elif self.seen_by_both:
            nothing = "the masks of all objects are empty; add a prompt on something that the model sees"
        elif self.seen:
            nothing = "no object is visible on both sides"
        unmeasured: dict[str, Json] = {
            metric: nothing for metric in OF_VISIBLE if self.compared and metrics[metric] is None
        }
        where = self.where | ({"nonfinite": self.outputs.where} if self.outputs.where else {})
        return {
            "dtype": "masks",
            "exact": False,
            "elements": self.compared,
            "masks": self.seen,
            "metrics": metrics,
            "not_run": unmeasured,
            "where": {metric: listed(texts) for metric, texts in where.items()},
            "problems": self.outputs.problems,
            "ties": dict(self.ties),
        }


def _described(found: Masks) -> dict[str, Json]:
    scores: list[Json] = [round(float(score), 6) for score in found.scores]
    return {"visible": found.visible, "chosen": found.chosen, "scores": scores}

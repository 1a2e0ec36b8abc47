"""Takes the instances that PyTorch and a target find, picture by picture, returns how they differ as a user sees it.

Instances are paired one to one: of all pairings the one with the largest sum of mask IoUs, and no pair without overlap.

    count      how many instances are lost or added: left without a partner on either side, over all pictures
    mask_iou   the smallest IoU of a pair's masks, at the picture's own size
    box_iou    the smallest IoU of a pair's boxes
    score      the largest difference of a pair's scores
    presence   in how many pictures the two disagree whether anything is there: presence above the score threshold
    nonfinite  how many values of the target's outputs are NaN or Inf; such a picture is left out of all the above,
               since a NaN is above no threshold and would pass for "nothing found"
    incomparable  in how many pictures an output has another shape or dtype

A metric of pairs is not measured where the reference finds nothing in any picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sam3_build.compare.outputs import PictureRow, SoundOutputs, listed
from sam3_build.pipeline.instances import Instances
from sam3_build.pipeline.ious import box_ious, mask_ious
from sam3_build.spec import Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

OF_PAIRS = ("mask_iou", "box_iou", "score")

# As near to the threshold as scores may differ (the gate on `score`); messages say so of a lost instance.
NEAR = 0.02
# Weight of a difference of scores against a difference of IoUs: it decides between equal masks only.
TIE = 1e-6

# ------------------------------------------------------------------ one picture


@dataclass(frozen=True)
class Pair:
    """Positions of two instances that are each other's, and how well they agree."""

    expected: int
    actual: int
    mask_iou: float
    box_iou: float
    score: float


def paired(expected: Instances, actual: Instances) -> tuple[Pair, ...]:
    """Return the pairs, in the order of the expected instances."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    of_masks, of_boxes = mask_ious(expected.masks, actual.masks), box_ious(expected.boxes, actual.boxes)
    scores = np.abs(expected.scores.astype(np.float64)[:, None] - actual.scores.astype(np.float64)[None])
    rows, columns = linear_sum_assignment(TIE * scores - of_masks)
    return tuple(
        Pair(int(i), int(j), float(of_masks[i, j]), float(of_boxes[i, j]), float(scores[i, j]))
        for i, j in zip(rows, columns, strict=True)
        if of_masks[i, j] > 0
    )


# ------------------------------------------------------------------ all pictures


@dataclass
class InstanceStatistics:
    """Accumulates what two sides find, picture by picture; `threshold` is that of the scores."""

    threshold: float
    pictures: list[dict[str, Json]] = field(default_factory=list)
    expected: int = 0
    compared: int = 0
    unpaired: int = 0
    disagreeing: int = 0
    with_presence: int = 0
    outputs: SoundOutputs = field(default_factory=SoundOutputs)
    worst: dict[str, float] = field(default_factory=dict)
    where: dict[str, list[str]] = field(default_factory=dict)

    def comparable(self, place: PictureRow, expected: Mapping[str, Array], actual: Mapping[str, Array]) -> bool:
        """Tell whether the outputs of one row can be compared at all; remember why not."""
        problem = self.outputs.problem(str(place), expected, actual)
        if self.outputs.where:
            self.where["nonfinite"] = self.outputs.where
        if problem:
            self.pictures.append({**place.document(), "problem": problem})
        return problem is None

    def add(self, place: PictureRow, expected: Instances, actual: Instances) -> tuple[Pair, ...]:
        """Take in what was found in one picture; return the pairs."""
        pairs = paired(expected, actual)
        lost = [i for i in range(len(expected.scores)) if i not in {pair.expected for pair in pairs}]
        added = [j for j in range(len(actual.scores)) if j not in {pair.actual for pair in pairs}]
        self.compared += 1
        self.expected += len(expected.scores)
        self.unpaired += len(lost) + len(added)
        for what, found, positions in (("lost", expected, lost), ("new", actual, added)):
            for i in positions:
                self._note("count", f"{_instance(place, found, i)} is {what}{self._because(found, i)}")
        for pair in pairs:
            self._pair(place, expected, actual, pair)
        presence = self._presence(place, expected.presence, actual.presence)
        self.pictures.append(
            {
                **place.document(),
                "expected": len(expected.scores),
                "actual": len(actual.scores),
                **presence,
                "pairs": [
                    {
                        "expected": _described(expected, pair.expected),
                        "actual": _described(actual, pair.actual),
                        **{metric: getattr(pair, metric) for metric in OF_PAIRS},
                    }
                    for pair in pairs
                ],
                "lost": [_described(expected, i) for i in lost],
                "added": [_described(actual, j) for j in added],
            }
        )
        return pairs

    def _presence(self, place: PictureRow, expected: float | None, actual: float | None) -> dict[str, Json]:
        """Take in both sides' presence; a model that does not say it has none in any picture."""
        if expected is None or actual is None:
            assert expected is actual, "a family says whether anything is there in every picture, or in none"
            return {}
        self.with_presence += 1
        agrees = (expected > self.threshold) == (actual > self.threshold)
        if not agrees:
            self.disagreeing += 1
            values = f"{actual:.4g} where {expected:.4g} is expected"
            self._note("presence", f"{place} has {values}, on the other side of {self.threshold:g}")
        return {"presence": {"expected": expected, "actual": actual, "agrees": agrees}}

    def _pair(self, place: PictureRow, expected: Instances, actual: Instances, pair: Pair) -> None:
        for metric, value, worse in (
            ("mask_iou", pair.mask_iou, min),
            ("box_iou", pair.box_iou, min),
            ("score", pair.score, max),
        ):
            before = self.worst.get(metric)
            if before is None or (value != before and worse(value, before) == value):
                self.worst[metric] = value
                self.where[metric] = [_instance(place, expected, pair.expected)]
                if metric == "score":
                    self.where[metric][0] += f" has {actual.scores[pair.actual]:.4f}"

    def _because(self, found: Instances, i: int) -> str:
        """Return what is known of why an instance has no partner."""
        if not found.masks[i].any():
            return ": its mask is empty, and an empty mask overlaps nothing"
        if found.scores[i] - self.threshold <= NEAR:
            return f": its score is within {NEAR:g} of the threshold, {self.threshold:g}"
        return ""

    def _note(self, metric: str, text: str) -> None:
        self.where.setdefault(metric, []).append(text)

    def metrics(self) -> dict[str, float | None]:
        """Return the metrics of the module's docstring; None for what could not be measured."""
        return {
            "count": self.unpaired if self.compared else None,
            **{metric: self.worst.get(metric) for metric in OF_PAIRS},
            "presence": self.disagreeing if self.with_presence else None,
            "nonfinite": self.outputs.nonfinite,
            "incomparable": len(self.outputs.problems),
        }

    def summary(self) -> dict[str, Json]:
        """Return everything measured, in the shape of a tensor's statistics: what the judge reads of an output."""
        metrics = self.metrics()
        not_run: dict[str, Json] = {}
        if self.compared and not self.worst:
            nothing = (
                f"the reference finds no instance above the score threshold, {self.threshold:g}, in any sample, so "
                "nothing can be compared; add a sample on which the model finds something"
            )
            not_run = dict.fromkeys(OF_PAIRS, "no instance has a partner" if self.expected else nothing)
        return {
            "dtype": "instances",
            "exact": False,
            "elements": self.compared,
            "instances": self.expected,
            "metrics": metrics,
            "not_run": not_run,
            "absent": ["presence"] if self.compared and not self.with_presence else [],
            "where": {metric: listed(texts) for metric, texts in self.where.items()},
            "problems": self.outputs.problems,
        }


def _described(found: Instances, i: int) -> dict[str, Json]:
    box: Sequence[float] = [round(float(edge), 2) for edge in found.boxes[i]]
    query = {} if found.queries is None else {"query": int(found.queries[i])}
    return {"instance": i, **query, "score": round(float(found.scores[i]), 6), "box": box}


def _instance(place: PictureRow, found: Instances, i: int) -> str:
    """Return how a message names an instance: `instance 2 of sample0 (query 7, box 3,4,50,60, score 0.9100)`."""
    box = ",".join(f"{edge:.0f}" for edge in found.boxes[i])
    query = "" if found.queries is None else f"query {int(found.queries[i])}, "
    return f"instance {i} of {place} ({query}box {box}, score {found.scores[i]:.4f})"

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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from sam3_build.spec import INSTANCES, Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Floats = NDArray[np.float64]
    Masks = NDArray[np.bool_]

OF_PAIRS = ("mask_iou", "box_iou", "score")

# As near to the threshold as scores may differ (`instance_gates.REDUCED`); messages say so of a lost instance.
NEAR = 0.02
# Weight of a difference of scores against a difference of IoUs: it decides between equal masks only.
TIE = 1e-6
# Pixels per step of an intersection: 200 masks of so many are 200 MB as float32.
CHUNK = 1 << 18
# So many instances are named when a gate fails.
NAMED = 3


class FoundInstances(Protocol):
    """The instances of one picture, as a family's `find` returns them."""

    @property
    def queries(self) -> NDArray[np.int64]:
        """[n]: which query of the model each is."""

    @property
    def scores(self) -> NDArray[np.float32]:
        """[n], 0 to 1."""

    @property
    def boxes(self) -> NDArray[np.float32]:
        """[n, 4], left, top, right, bottom in pixels."""

    @property
    def masks(self) -> Masks:
        """[n, height, width]."""

    @property
    def presence(self) -> float:
        """0 to 1."""


# ------------------------------------------------------------------ one picture


@dataclass(frozen=True)
class Pair:
    """Positions of two instances that are each other's, and how well they agree."""

    expected: int
    actual: int
    mask_iou: float
    box_iou: float
    score: float


def paired(expected: FoundInstances, actual: FoundInstances) -> tuple[Pair, ...]:
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


def mask_ious(expected: Masks, actual: Masks) -> Floats:
    """Return [n, m]: the IoU of each of n masks with each of m, all [height, width]; 0 where both are empty."""
    import numpy as np

    pixels = expected.shape[1] * expected.shape[2]
    a, b = (masks.reshape(len(masks), pixels) for masks in (expected, actual))
    both: Floats = np.zeros((len(a), len(b)))
    for start in range(0, a.shape[1], CHUNK):
        step = slice(start, start + CHUNK)
        both += a[:, step].astype(np.float32) @ b[:, step].astype(np.float32).T  # whole numbers below 2^24: exact
    either: Floats = a.sum(1)[:, None] + b.sum(1)[None] - both
    ious: Floats = both / np.maximum(either, 1)
    return ious


def box_ious(expected: NDArray[np.float32], actual: NDArray[np.float32]) -> Floats:
    """Return [n, m]: the IoU of each box of [n, 4] with each of [m, 4]; 1 for equal ones, even without area."""
    import numpy as np

    a, b = (boxes.astype(np.float64) for boxes in (expected, actual))
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = (high - low).clip(0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1) for boxes in (a, b)]
    either = areas[0][:, None] + areas[1][None] - both
    equal = (a[:, None] == b[None]).all(2)
    return np.where(equal, 1.0, both / np.where(either > 0, either, 1))


# ------------------------------------------------------------------ all pictures


@dataclass(frozen=True)
class PictureRow:
    """Where in the run a picture stands: the sample of the manifest, and the case and row that it was part of."""

    case: str
    row: int
    sample: int

    def __str__(self) -> str:
        """Return how a message names it."""
        name = f"sample{self.sample}"
        return name if self.case == name else f"{name} (case {self.case!r}, row {self.row})"


@dataclass
class InstanceStatistics:
    """Accumulates what two sides find, picture by picture; `threshold` is that of the scores."""

    threshold: float
    pictures: list[dict[str, Json]] = field(default_factory=list)
    expected: int = 0
    compared: int = 0
    unpaired: int = 0
    disagreeing: int = 0
    nonfinite: int = 0
    problems: list[str] = field(default_factory=list)
    worst: dict[str, float] = field(default_factory=dict)
    where: dict[str, list[str]] = field(default_factory=dict)

    def comparable(self, place: PictureRow, expected: Mapping[str, Array], actual: Mapping[str, Array]) -> bool:
        """Tell whether the outputs of one row can be compared at all; remember why not."""
        import numpy as np

        for name, reference in expected.items():
            found = actual.get(name)
            if found is None or found.shape != reference.shape or found.dtype != reference.dtype:
                has = "is missing" if found is None else f"is {found.dtype.name}{list(found.shape)}"
                wanted = f"{reference.dtype.name}{list(reference.shape)}"
                self.problems.append(f"{place}: {name} {has} where {wanted} is expected")
                self.pictures.append({**_named(place), "problem": self.problems[-1]})
                return False
        wrong = {name: ~np.isfinite(array) for name, array in actual.items() if array.dtype.kind == "f"}
        counts = {name: int(mask.sum()) for name, mask in wrong.items() if mask.any()}
        for name, count in counts.items():
            index = [int(i) for i in np.argwhere(wrong[name])[0]]
            value = actual[name][tuple(index)].item()
            self._note("nonfinite", f"{place} has {count} in {name}, the first one ({value}) at {index}")
        self.nonfinite += sum(counts.values())
        if counts:
            self.pictures.append({**_named(place), "problem": self.where["nonfinite"][-1]})
        return not counts

    def add(self, place: PictureRow, expected: FoundInstances, actual: FoundInstances) -> tuple[Pair, ...]:
        """Take in what was found in one picture; return the pairs."""
        pairs = paired(expected, actual)
        lost = [i for i in range(len(expected.queries)) if i not in {pair.expected for pair in pairs}]
        added = [j for j in range(len(actual.queries)) if j not in {pair.actual for pair in pairs}]
        self.compared += 1
        self.expected += len(expected.queries)
        self.unpaired += len(lost) + len(added)
        for what, found, positions in (("lost", expected, lost), ("new", actual, added)):
            for i in positions:
                self._note("count", f"{_instance(place, found, i)} is {what}{self._because(found, i)}")
        for pair in pairs:
            self._pair(place, expected, actual, pair)
        decided = [bool(side.presence > self.threshold) for side in (expected, actual)]
        agrees = decided[0] == decided[1]
        if not agrees:
            self.disagreeing += 1
            presence = f"{actual.presence:.4g} where {expected.presence:.4g} is expected"
            self._note("presence", f"{place} has {presence}, on the other side of {self.threshold:g}")
        self.pictures.append(
            {
                **_named(place),
                "expected": len(expected.queries),
                "actual": len(actual.queries),
                "presence": {"expected": expected.presence, "actual": actual.presence, "agrees": agrees},
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

    def _pair(self, place: PictureRow, expected: FoundInstances, actual: FoundInstances, pair: Pair) -> None:
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

    def _because(self, found: FoundInstances, i: int) -> str:
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
            "presence": self.disagreeing if self.compared else None,
            "nonfinite": self.nonfinite,
            "incomparable": len(self.problems),
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
            "dtype": INSTANCES,
            "exact": False,
            "elements": self.compared,
            "instances": self.expected,
            "metrics": metrics,
            "not_run": not_run,
            "where": {metric: _listed(texts) for metric, texts in self.where.items()},
            "problems": self.problems,
        }


def _named(place: PictureRow) -> dict[str, Json]:
    return {"case": place.case, "row": place.row, "sample": place.sample}


def _described(found: FoundInstances, i: int) -> dict[str, Json]:
    box: Sequence[float] = [round(float(edge), 2) for edge in found.boxes[i]]
    return {"instance": i, "query": int(found.queries[i]), "score": round(float(found.scores[i]), 6), "box": box}


def _instance(place: PictureRow, found: FoundInstances, i: int) -> str:
    """Return how a message names an instance: `instance 2 of sample0 (box 3,4,50,60, score 0.91)`."""
    box = ",".join(f"{edge:.0f}" for edge in found.boxes[i])
    return f"instance {i} of {place} (query {int(found.queries[i])}, box {box}, score {found.scores[i]:.4f})"


def _listed(texts: Iterable[str]) -> str:
    every = list(texts)
    more = f"; and {len(every) - NAMED} more" if len(every) > NAMED else ""
    return "; ".join(every[:NAMED]) + more

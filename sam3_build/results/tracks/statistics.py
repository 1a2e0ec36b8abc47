"""Takes the tracks that PyTorch and a target give, clip by clip, returns how they differ as a user sees it.

Objects are paired by their id, in every frame.

    mask_iou   the smallest IoU of an object's masks in a frame in which both sides see it
    visible    in how many frames, of how many objects, the two disagree whether the object is visible
    objects    how many ids are lost or added, over all clips
    mean_iou   of each clip the mean IoU over all frames in which an object is visible on either side, which is 0 where
               the other one does not see it; of these the smallest
    order      the smallest IoU of an object's masks in a frame when the prompts give the objects in another order: what
               is built against itself; 0 where one of the two orders alone shows the object
    nonfinite  how many values of the target's outputs are NaN or Inf; such a clip is left out of all the above
    incomparable  in how many clips an output has another shape or dtype

Where both sides see an object and neither has a pixel of it, there is nothing to compare; where the reference sees none
in any frame, no IoU is measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, groupby
from typing import TYPE_CHECKING

from sam3_build.compare.outputs import SoundOutputs, listed
from sam3_build.pipeline.ious import mask_ious
from sam3_build.pipeline.tracks import Tracks
from sam3_build.spec import Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Flags = NDArray[np.bool_]
    Floats = NDArray[np.float64]

# Two objects are swapped where each overlaps the other's reference by more than this, and its own by no more.
SAME = 0.5

OF_MASKS = ("mask_iou", "mean_iou")


# ------------------------------------------------------------------ one clip


@dataclass(frozen=True)
class ComparedClip:
    """How two tracks of a clip agree; ids in rising order, those of both sides.

    expected, actual: [frames, n], whether the object is visible on a side; never, where it does not have the id
    ious:    [frames, n], NaN where neither side has a pixel
    swapped: (id, id) -> [frames], whether the two are each other's
    lost, added: the ids that one side alone has
    """

    ids: tuple[int, ...]
    expected: Flags
    actual: Flags
    ious: Floats
    swapped: Mapping[tuple[int, int], Flags]
    lost: tuple[int, ...]
    added: tuple[int, ...]


def compared(expected: Tracks, actual: Tracks) -> ComparedClip:
    """Return how two tracks agree; they have equally many frames, of equal size."""
    import numpy as np

    own, other = ([int(i) for i in side.ids] for side in (expected, actual))
    ids = tuple(sorted({*own, *other}))
    frames = len(expected.masks)
    visible = [_by_id(side, ids) for side in (expected, actual)]
    ious: Floats = np.full((frames, len(ids)), np.nan)
    crossed: Floats = np.zeros((frames, len(ids), len(ids)))
    for frame in range(frames):
        masks = [
            _masks(side, ids, shown[frame], frame) for side, shown in zip((expected, actual), visible, strict=True)
        ]
        crossed[frame] = mask_ious(*masks)
        has_pixels = (masks[0] | masks[1]).any((1, 2))
        ious[frame, has_pixels] = crossed[frame].diagonal()[has_pixels]
    swapped = {
        (ids[i], ids[j]): found
        for i, j in combinations(range(len(ids)), 2)
        if (
            found := (np.minimum(crossed[:, i, j], crossed[:, j, i]) > SAME)
            & (np.maximum(crossed[:, i, i], crossed[:, j, j]) <= SAME)
        ).any()
    }
    lost, added = (tuple(sorted({*a} - {*b})) for a, b in ((own, other), (other, own)))
    return ComparedClip(ids, visible[0], visible[1], ious, swapped, lost, added)


def _by_id(side: Tracks, ids: Sequence[int]) -> Flags:
    """Return [frames, n]: whether each id is visible; an id that the side does not have never is."""
    import numpy as np

    shown: Flags = np.zeros((len(side.masks), len(ids)), np.bool_)
    shown[:, [ids.index(int(i)) for i in side.ids]] = side.visible
    return shown


def _masks(side: Tracks, ids: Sequence[int], shown: Flags, frame: int) -> Flags:
    """Return [n, height, width]: the masks of one frame by id, empty where the object is not visible."""
    import numpy as np

    masks: Flags = np.zeros((len(ids), *side.masks.shape[2:]), np.bool_)
    masks[[ids.index(int(i)) for i in side.ids]] = side.masks[frame]
    masks[~shown] = False
    return masks


# ------------------------------------------------------------------ all clips


@dataclass
class TrackStatistics:
    """Accumulates what two sides follow, clip by clip."""

    clips: list[dict[str, Json]] = field(default_factory=list)
    frames: int = 0
    objects: int = 0
    unpaired: int = 0
    disagreeing: int = 0
    outputs: SoundOutputs = field(default_factory=SoundOutputs)
    worst: dict[str, float] = field(default_factory=dict)
    where: dict[str, list[str]] = field(default_factory=dict)
    swaps: list[str] = field(default_factory=list)
    reordered: int = 0
    prompted: int = 0

    def comparable(self, clip: str, expected: Mapping[str, Array], actual: Mapping[str, Array]) -> bool:
        """Tell whether the outputs of one clip can be compared at all; remember why not."""
        problem = self.outputs.problem(clip, expected, actual)
        if problem:
            self.clips.append({"clip": clip, "problem": problem})
        return problem is None

    def add(self, clip: str, expected: Tracks, actual: Tracks) -> ComparedClip:
        """Take in both sides' tracks of one clip."""
        found = compared(expected, actual)
        self.frames += len(found.ious)
        self.prompted += expected.texts is None
        self.objects += int(found.expected.any(0).sum())
        self.unpaired += len(found.lost) + len(found.added)
        for what, ids in (("lost", found.lost), ("new", found.added)):
            self._note("objects", (f"object {i} of {clip} is {what}" for i in ids))
        self._visible(clip, found)
        self._ious(clip, found)
        self.swaps += [f"objects {a} and {b} of {clip} are swapped {_swapped(found, a, b)}" for a, b in found.swapped]
        self.clips.append({"clip": clip, "objects": [_described(found, i) for i in range(len(found.ids))]})
        return found

    def reorder(self, clip: str, before: Tracks, after: Tracks) -> None:
        """Take in what is built gives of one clip with its objects in another order."""
        import numpy as np

        found = compared(before, after)
        apart = np.where(found.expected != found.actual, 0.0, found.ious)
        self.reordered += 1
        if np.isfinite(apart).any():
            frame, i = divmod(int(np.nanargmin(apart)), apart.shape[1])
            self._worst("order", float(apart[frame, i]), f"object {found.ids[i]} of {clip} at frame {frame}")

    def _visible(self, clip: str, found: ComparedClip) -> None:
        for i, name in enumerate(found.ids):
            if name in (*found.lost, *found.added):
                continue
            differs = found.expected[:, i] != found.actual[:, i]
            self.disagreeing += int(differs.sum())
            for what, side in (("lost", found.expected), ("new", found.actual)):
                runs = _runs(differs & side[:, i])
                self._note("visible", (f"object {name} of {clip} {_at(*run)} is {what}" for run in runs))

    def _ious(self, clip: str, found: ComparedClip) -> None:
        import numpy as np

        both = np.where(found.expected & found.actual, found.ious, np.nan)
        if np.isfinite(both).any():
            frame, i = divmod(int(np.nanargmin(both)), both.shape[1])
            self._worst("mask_iou", float(both[frame, i]), f"object {found.ids[i]} of {clip} at frame {frame}")
        if np.isfinite(found.ious).any():
            frame, i = divmod(int(np.nanargmin(found.ious)), found.ious.shape[1])
            least = f"object {found.ids[i]} at frame {frame} (IoU {found.ious[frame, i]:.4g})"
            self._worst("mean_iou", float(np.nanmean(found.ious)), f"{clip}, the least of it {least}")

    def _worst(self, metric: str, value: float, where: str) -> None:
        if value < self.worst.get(metric, math.inf):
            self.worst[metric] = value
            self.where[metric] = [where]

    def _note(self, metric: str, texts: Iterator[str]) -> None:
        if some := list(texts):
            self.where.setdefault(metric, []).extend(some)

    def metrics(self) -> dict[str, float | None]:
        """Return the metrics of the module's docstring; None for what could not be measured."""
        return {
            "mask_iou": self.worst.get("mask_iou"),
            "visible": self.disagreeing if self.frames else None,
            "objects": self.unpaired if self.frames else None,
            "mean_iou": self.worst.get("mean_iou") if self.objects else None,
            "order": self.worst.get("order"),
            "nonfinite": self.outputs.nonfinite,
            "incomparable": len(self.outputs.problems),
        }

    def summary(self) -> dict[str, Json]:
        """Return everything measured, in the shape of a tensor's statistics: what the judge reads of an output."""
        metrics = self.metrics()
        nothing = (
            "the reference sees no object in any frame, so nothing can be compared; add a prompt for something that "
            "the model follows"
        )
        apart = "in no frame do both sides see the same object"
        not_run: dict[str, Json] = {
            metric: apart if self.objects else nothing for metric in OF_MASKS if self.frames and metrics[metric] is None
        }
        has_no_order = self.frames > 0 and not self.prompted
        if self.frames and metrics["order"] is None and not has_no_order:
            not_run["order"] = "no clip has prompts for two objects on one frame" if not self.reordered else apart
        where = {metric: [*texts, *(self.swaps if metric in OF_MASKS else ())] for metric, texts in self.where.items()}
        where |= {"nonfinite": self.outputs.where} if self.outputs.where else {}
        return {
            "dtype": "tracks",
            "exact": False,
            "elements": self.frames,
            "tracks": self.objects,
            "metrics": metrics,
            "not_run": not_run,
            "absent": ["order"] if has_no_order else [],
            "where": {metric: listed(texts) for metric, texts in where.items()},
            "problems": self.outputs.problems,
        }


def _described(found: ComparedClip, i: int) -> dict[str, Json]:
    ious: list[Json] = [None if math.isnan(iou) else round(float(iou), 6) for iou in found.ious[:, i]]
    expected: list[Json] = [bool(shown) for shown in found.expected[:, i]]
    actual: list[Json] = [bool(shown) for shown in found.actual[:, i]]
    return {"object": found.ids[i], "iou": ious, "expected": expected, "actual": actual}


# ------------------------------------------------------------------ words


def _runs(flags: Flags) -> list[tuple[int, int]]:
    """Return the first and last frame of each run of frames that are set."""
    runs = (list(group) for is_set, group in groupby(range(len(flags)), key=lambda frame: bool(flags[frame])) if is_set)
    return [(run[0], run[-1]) for run in runs]


def _at(first: int, last: int) -> str:
    return f"at frame {first}" if first == last else f"in frames {first} to {last}"


def _swapped(found: ComparedClip, a: int, b: int) -> str:
    """Return when two objects are swapped, as a message says it: `from frame 3 on`, `at frame 3`.

    What counts are frames in which both sides see both of them.
    """
    import numpy as np

    pair = [found.ids.index(a), found.ids.index(b)]
    (seen,) = np.nonzero((found.expected[:, pair] & found.actual[:, pair]).all(1))
    runs = [(int(seen[first]), int(seen[last])) for first, last in _runs(found.swapped[a, b][seen])]
    if len(runs) == 1 and runs[0][1] == seen[-1]:
        return f"from frame {runs[0][0]} on"
    return " and ".join(_at(*run) for run in runs)

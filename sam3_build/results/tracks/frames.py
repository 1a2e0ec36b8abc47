"""Takes a clip that was compared; says which of its frames are drawn, and draws and describes one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sam3_build.drawing.captions import object_prompt, prompt
from sam3_build.drawing.overlay import WIDTH, panels
from sam3_build.drawing.sheet import MOST
from sam3_build.pipeline.masks import boxes_around
from sam3_build.pipeline.prompts import boxes_of, points_of
from sam3_build.pipeline.tracks import Tracks
from sam3_build.results.tracks.statistics import ComparedClip
from sam3_build.spec import Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sam3_build.drawing.overlay import Panels
    from sam3_build.plugins import Picture

LEGEND = (
    "An object has the same colour on both sides. Red areas: where the two differ. "
    "Thick red box: seen by one of the two alone."
)


@dataclass(frozen=True)
class Seen:
    """A frame of a clip, and the prompts on it, as documents."""

    frame: int
    picture: Picture
    prompts: tuple[Mapping[str, Json], ...]

    @property
    def words(self) -> str:
        """Return what is asked on this frame: `: object 1 by 1 point`; empty where nothing is."""
        return f": {', '.join(map(_asked, self.prompts))}" if self.prompts else ""


def _asked(one: Mapping[str, Json]) -> str:
    """Return one prompt in words; a text needs no object, since it may mean several."""
    if one.get("object") is not None:
        return f"object {one['object']} by {object_prompt(one)}"
    return f"without {one['remove']}" if one.get("remove") is not None else prompt(one)


@dataclass(frozen=True)
class Objects:
    """The objects of one frame that have pixels, as overlays take them: masks, and the boxes around these."""

    ids: tuple[int, ...]
    masks: NDArray[np.bool_]
    boxes: NDArray[np.float32]


@dataclass(frozen=True)
class Partners:
    """Positions of one object among those of each side."""

    expected: int
    actual: int


def chosen(clip: ComparedClip) -> tuple[int, ...]:
    """Return the frames that are drawn, MOST of them at most: of a longer clip the worst, and some far apart."""
    import numpy as np

    frames = len(clip.ious)
    if frames <= MOST:
        return tuple(range(frames))
    unequal = (clip.expected != clip.actual).any(1)
    least = np.where(np.isnan(clip.ious), 1.0, clip.ious).min(1, initial=1.0)
    differing = [int(frame) for frame in np.lexsort((least, ~unequal)) if unequal[frame] or least[frame] < 1]
    spread = [int(frame) for frame in np.linspace(0, frames - 1, MOST).round()]
    return tuple(sorted([*dict.fromkeys((*differing[: MOST // 2], *spread))][:MOST]))


def asked(sample: Mapping[str, Json], frame: int) -> tuple[Mapping[str, Json], ...]:
    """Return the prompts on a frame, by the sample's document."""
    prompts = sample["prompts"]
    listed = prompts.get("prompts") if isinstance(prompts, Mapping) else None
    on_frames = listed if isinstance(listed, Sequence) else ()
    return tuple(one for one in on_frames if isinstance(one, Mapping) and one.get("frame") == frame)


def drawn(seen: Seen, clip: ComparedClip, expected: Tracks, actual: Tracks, width: int = WIDTH) -> Panels:
    """Return the frame with its prompts, what the reference sees in it and what the target sees."""
    own, other = (_objects(side, seen.frame) for side in (expected, actual))
    pairs = [Partners(own.ids.index(i), other.ids.index(i)) for i in own.ids if i in other.ids]
    boxes = [box for one in seen.prompts for box in boxes_of(one)]
    points = [point for one in seen.prompts for point in points_of(one)]
    return panels(seen.picture, boxes, own, other, pairs, width, [clip.ids.index(i) for i in own.ids], points)


def caption(clip: ComparedClip, frame: int) -> str:
    """Return what is seen in a frame, such as `2 visible, 2 by PyTorch; smallest mask IoU 0.991`."""
    counts = [int(side[frame].sum()) or "none" for side in (clip.actual, clip.expected)]
    iou = smallest_iou(clip, frame)
    # Rounded down: an IoU that is not 1 never reads as if it were.
    smallest = "" if iou is None else f"; smallest mask IoU {int(iou * 1000) / 1000:.3f}"
    return f"{counts[0]} visible, {counts[1]} by PyTorch{smallest}"


def differences(clip: ComparedClip, frame: int) -> tuple[str, ...]:
    """Return what a user would notice in a frame: objects that one side alone sees, and such as are swapped."""
    words = []
    for i, name in enumerate(clip.ids):
        if clip.expected[frame, i] != clip.actual[frame, i]:
            words.append(f"object {name} {'lost' if clip.expected[frame, i] else 'new'}")
    words += [f"objects {a} and {b} swapped" for (a, b), flags in clip.swapped.items() if flags[frame]]
    return tuple(words)


def smallest_iou(clip: ComparedClip, frame: int) -> float | None:
    """Return the smallest IoU of an object that both sides see in a frame; None without one."""
    import numpy as np

    ious = clip.ious[frame][clip.expected[frame] & clip.actual[frame]]
    return float(np.nanmin(ious)) if np.isfinite(ious).any() else None


def metrics(clip: ComparedClip, frame: int) -> dict[str, float]:
    """Return the metrics of one frame; an IoU where both sides see an object."""
    iou = smallest_iou(clip, frame)
    overlap = {} if iou is None else {"mask_iou": iou}
    return {**overlap, "visible": float((clip.expected[frame] != clip.actual[frame]).sum())}


def _objects(side: Tracks, frame: int) -> Objects:
    shown = [i for i in range(len(side.ids)) if side.visible[frame, i] and side.masks[frame, i].any()]
    masks = side.masks[frame, shown]
    return Objects(tuple(int(side.ids[i]) for i in shown), masks, boxes_around(masks))

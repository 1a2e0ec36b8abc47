"""Measures how well a tracker segments what is clicked or boxed in held-out scenes, and follows it through clips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from training import scenes
from training.metrics import overlap
from training.scenes import HELD_OUT
from training.tracking import batches, clips

if TYPE_CHECKING:
    from torch import Tensor

    from sam3_build.spec import Json
    from training.tracking.network import Tracker

SCENES, CLIPS = 200, 60
# So many choose among a run's weights.
FEW_SCENES, FEW_CLIPS = 80, 12
FRAMES = 16

# What the committed weights are to reach; see README.md.
GOALS = {
    "one click": {"iou": 0.80},
    "three clicks": {"iou": 0.88},
    "one box": {"iou": 0.85},
    "track": {"iou": 0.75, "visible": 0.90},
}

Numbers = Mapping[str, Mapping[str, float]]


def of_tensors(tensors: Mapping[str, Tensor], config: Mapping[str, Json]) -> Tracker:
    """Return a tracker with the weights of a checkpoint, by transformers' keys."""
    from training.tracking.network import Tracker

    tracker = Tracker(config)
    tracker.model.load_state_dict(dict(tensors), strict=True)
    return tracker.eval()


def evaluate(tracker: Tracker, pictures: int = SCENES, videos: int = CLIPS, seed: int = HELD_OUT) -> Numbers:
    """Return kind of prompt -> metric -> value: mean IoU over all objects, and over those of all later frames."""
    import torch

    with torch.inference_mode():
        return {**_on_pictures(tracker, pictures, seed), "track": _on_clips(tracker, videos, seed)}


def _on_pictures(tracker: Tracker, count: int, seed: int) -> Numbers:
    """Click the middle of every object, then twice into the middle of what is most wrong; and box every one."""
    import torch

    from training.tracking import learning

    found: dict[str, list[float]] = {"one click": [], "three clicks": [], "one box": []}
    for number in range(count):
        scene = scenes.draw(seed, number)
        masks = np.stack([shape.mask for shape in scene.shapes])
        levels, _ = tracker.encode(torch.from_numpy(batches.still(scene.picture))[None])
        own = levels.of(torch.zeros(len(masks), dtype=torch.int64))
        features = tracker.without_memory(own.coarse)
        marks = learning.first_clicks(masks)
        answer = tracker.decode(own, features, marks.points, marks.labels)
        found["one click"] += _ious(answer.mask, masks)
        for _ in range(2):
            marks = marks.and_one(*learning.corrections(masks, answer.mask, None))
            answer = tracker.decode(own, features, marks.points, marks.labels, answer.mask[:, None])
        found["three clicks"] += _ious(answer.mask, masks)
        marks = learning.boxes(masks, None)
        answer = tracker.decode(own, features, marks.points, marks.labels)
        found["one box"] += _ious(answer.mask, masks)
    return {kind: {"iou": float(np.mean(values))} for kind, values in found.items()}


def _on_clips(tracker: Tracker, count: int, seed: int) -> Mapping[str, float]:
    """Box every object in the first frame of clips, and follow it."""
    from training.tracking import learning

    ious: list[float] = []
    right: list[bool] = []
    for number in range(count):
        clip = clips.draw(seed, number, range(FRAMES))
        masks = clip.masks
        followed = learning.follow(tracker, clip.frames, learning.boxes(masks[0], None))
        for t, answer in enumerate(followed):
            if t == 0:
                continue
            there = answer.present[:, 0].numpy() > 0
            found = (learning.enlarged(answer.mask).numpy() > 0) & there[:, None, None]
            right += (there == clip.visible[t]).tolist()
            for i in np.flatnonzero(clip.visible[t]):
                ious.append(overlap(found[i], masks[t, i]))
    return {"iou": float(np.mean(ious)), "visible": float(np.mean(right))}


def _ious(logits: Tensor, masks: scenes.Mask) -> list[float]:
    from training.tracking import learning

    return [overlap(a, b) for a, b in zip(learning.enlarged(logits).numpy() > 0, masks, strict=True)]


def table(numbers: Numbers) -> str:
    """Return the numbers as lines of text."""
    lines = ["prompt        mean IoU  visible"]
    for kind, row in numbers.items():
        lines.append(f"{kind:12}  {row['iou']:8.3f}" + (f"  {row['visible']:7.3f}" if "visible" in row else ""))
    return "\n".join(lines)

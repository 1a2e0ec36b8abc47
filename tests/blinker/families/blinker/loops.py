"""Follows objects through a clip: decodes a mask of each from its state, and updates the state. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sam3_build.pipeline.loop import LoopNetwork

if TYPE_CHECKING:
    from sam3_build.pipeline.chain import Arrays
    from sam3_build.pipeline.loop import Frames

# What stands for the logits of an object that has no prompt yet, or was removed.
ABSENT = -10.0


def track(networks: Mapping[str, LoopNetwork], given: Arrays, frames: Frames) -> Arrays:
    """Return `ids` [objects], `masks` [frames, objects, h, w] and `visible` [frames, objects], logits.

    given: prompt_frames, prompt_objects [prompts], prompt_points [prompts, 2] (x, y in pixels; NaN: it is removed)
    """
    import numpy as np

    ids = list(dict.fromkeys(given["prompt_objects"].tolist()))
    states: dict[int, Arrays] = {}
    masks, visible = [], []
    for position, frame in enumerate(frames):
        features = frame["features"]
        prompted = False
        for at, which, (x, y) in zip(
            given["prompt_frames"], given["prompt_objects"].tolist(), given["prompt_points"], strict=True
        ):
            if at != position:
                continue
            if np.isnan(x):
                states.pop(which, None)
            else:
                states[which], prompted = features[0, :, int(y), int(x)], True
        masks.append(np.full((len(ids), *features.shape[2:]), ABSENT, np.float32))
        visible.append(np.full(len(ids), ABSENT, np.float32))
        if not (followed := [which for which in ids if which in states]):
            continue
        state = np.stack([states[which] for which in followed])
        decoded = networks["decode"]({"features": features, "state": state}, kind="prompted" if prompted else "")
        seen = _seen(features[0], decoded["masks"], state)
        updated = networks["update_state"]({"state": state, "seen": seen})["next_state"]
        for row, which in enumerate(followed):
            states[which] = updated[row].copy()
            masks[-1][ids.index(which)] = decoded["masks"][row]
            visible[-1][ids.index(which)] = decoded["visible"][row, 0]
    return {"ids": np.array(ids, np.int64), "masks": np.stack(masks), "visible": np.stack(visible)}


def _seen(features, masks, state):
    """Return [objects, channels]: the mean of what an object's mask covers; of an empty one, its state."""
    import numpy as np

    inside = masks > 0
    covered = [features[:, where].mean(axis=1) if where.any() else state[row] for row, where in enumerate(inside)]
    return np.stack(covered).astype(np.float32)

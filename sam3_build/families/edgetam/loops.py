"""Follows objects through clips: `track` is the loop of the layout `predictor`, with what EdgeTAM's networks take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sam3_build.families.edgetam.family import LEFT_OUT
from sam3_build.pipeline import tracking
from sam3_build.pipeline.loop import LoopNetwork

if TYPE_CHECKING:
    from sam3_build.pipeline.chain import Arrays
    from sam3_build.pipeline.loop import Frames


def track(networks: Mapping[str, LoopNetwork], given: Arrays, frames: Frames) -> Arrays:
    """Return what `tracking.track` returns."""
    return tracking.track(_narrowed(networks), given, frames)


def tracker(networks: Mapping[str, LoopNetwork], frames: int = 0) -> tracking.Tracker:
    """Return what follows objects frame by frame."""
    return tracking.Tracker(_narrowed(networks), frames)


def _narrowed(networks: Mapping[str, LoopNetwork]) -> dict[str, LoopNetwork]:
    return {name: _without(LEFT_OUT[name], run) if name in LEFT_OUT else run for name, run in networks.items()}


def _without(left_out: str, run: LoopNetwork) -> LoopNetwork:
    def narrowed(inputs: Arrays, /, kind: str = "") -> Arrays:
        return run({name: array for name, array in inputs.items() if name != left_out}, kind=kind)

    return narrowed


# Loop -> what runs it frame by frame.
TRACKERS = {"track": tracker}

"""Trains the click-and-track miniature from a seed alone: weights, config and a curve into a run's folder.

    python -m training.tracking.train training/runs/track --steps 5000

Pictures alone at first, then clips, and pictures now and then. One process per core, each with scenes of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.spec import Json
from training import running
from training.scenes import CHOOSING

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = Path(__file__).parent / "config.json"


@dataclass(frozen=True)
class TrainingOptions(running.RunOptions):
    """What determines a run.

    pictures: of a batch, with `objects` of each; clips: of a batch
    clips_from: the first step with clips; stills: every so many of the steps from there on have pictures
    frames: of each clip that is learnt from
    """

    fall: int = 1500
    pictures: int = 6
    objects: int = 3
    clips: int = 2
    frames: int = 5
    clips_from: int = 1400
    stills: int = 4
    evaluate_minutes: float = 20.0


def main() -> None:
    """Train with the options of the command line."""
    running.start(make, running.parse(TrainingOptions, __doc__, CONFIG))


def make(options: TrainingOptions, config: Mapping[str, Json]) -> running.Task:
    """Return what a process learns: to segment what is clicked or boxed, and to follow it."""
    import numpy as np

    from training.record import Curves, Exam
    from training.tracking import batches, evaluate, learning
    from training.tracking.network import Tracker

    learner = learning.Learner(Tracker(config))

    def losses(step: int, turn: int) -> tuple[Tensor, Mapping[str, float]]:
        rng = np.random.default_rng([options.seed, turn, 5])
        if step >= options.clips_from and step % options.stills:
            clips = batches.videos(options.seed, turn, options.clips, options.frames)
            loss, parts = learning.on_clips(learner, clips, rng)
        else:
            pictures = batches.pictures(options.seed, turn, options.pictures, options.objects)
            loss, parts = learning.on_pictures(learner, pictures, rng)
        # Clips say nothing of what the encoder sees: a column of its own would have gaps.
        return loss, {name: float(parts[name].detach()) for name in curves.losses}

    curves = Curves(("dice", "focal", "iou", "present"), lambda _: True, "scenes and clips that were never trained on")
    exam = Exam(
        lambda tensors: evaluate.evaluate(
            evaluate.of_tensors(tensors, config), evaluate.FEW_SCENES, evaluate.FEW_CLIPS, seed=CHOOSING
        ),
        evaluate.table,
    )
    return running.Task(learner, learner.tracker.model, losses, exam, curves)


if __name__ == "__main__":
    main()

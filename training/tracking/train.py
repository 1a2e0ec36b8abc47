"""Trains the click-and-track miniature from a seed alone: weights, config and a curve into a run's folder.

    python -m training.tracking.train training/runs/track --steps 5000

Pictures alone at first; then clips that grow longer, and pictures now and then, while the image encoder stays as it is.
One process per core, each with scenes of its own.
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
# Columns of evaluations.csv that the curve does not show.
NO_METRIC = ("step", "goal")
TITLE = "scenes and clips that were never trained on"


@dataclass(frozen=True)
class TrainingOptions(running.RunOptions):
    """What determines a run.

    pictures: of a batch; objects: of each picture and clip
    clips_from: the first step with clips; stills: every so many of the steps from there on have pictures
    images: frames of a batch of clips; longest: frames of one clip in the end
    grow: steps after which clips have a frame more, from two on
    clip_peak: the learning rate from clips_from on, where `peak` is that before
    """

    steps: int = 3600
    fall: int = 900
    pictures: int = 6
    objects: int = 3
    clips_from: int = 1800
    stills: int = 4
    images: int = 12
    longest: int = 6
    grow: int = 250
    clip_peak: float = 4e-4
    evaluate_minutes: float = 20.0

    def frames(self, step: int) -> int:
        """Return how many frames the clips of `step` have; 0 where it has pictures."""
        since = step - self.clips_from
        return min(2 + since // self.grow, self.longest) if since >= 0 and step % self.stills else 0

    def rate(self, step: int) -> float:
        """Return the learning rate of `step`: pictures and clips each have a rise, a plateau and a fall."""
        from training.learning import Schedule

        if step < self.clips_from:
            return Schedule(self.clips_from, self.fall // 2, peak=self.peak).rate(step)
        return Schedule(self.steps - self.clips_from, self.fall, 100, self.clip_peak).rate(step - self.clips_from)


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
        # What sees shapes and colours in pictures does so in frames, and memories are learnt of features that stay.
        learner.tracker.model.vision_encoder.requires_grad_(step < options.clips_from)
        if frames := options.frames(step):
            clips = batches.videos(options.seed, turn, options.images // frames, frames, options.objects)
            loss, parts = learning.on_clips(learner, clips, rng)
        else:
            pictures = batches.pictures(options.seed, turn, options.pictures, options.objects)
            loss, parts = learning.on_pictures(learner, pictures, rng)
        # Clips say nothing of what the encoder sees: a column of its own would have gaps.
        return loss, {name: float(parts[name].detach()) for name in curves.losses}

    curves = Curves(("dice", "focal", "iou", "present"), lambda name: name not in NO_METRIC, TITLE)
    exam = Exam(
        lambda tensors: evaluate.evaluate(
            evaluate.of_tensors(tensors, config), evaluate.FEW_SCENES, evaluate.FEW_CLIPS, seed=CHOOSING
        ),
        evaluate.table,
    )
    return running.Task(learner, learner.tracker.model, losses, options.rate, exam, curves)


if __name__ == "__main__":
    main()

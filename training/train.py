"""Trains the miniature from a seed alone: writes weights, config, tokenizer and a curve into a run's folder.

    python -m training.train training/runs/mine --steps 5000

One process per core, each with pictures of its own, that add up their gradients: with networks this small that is a
third faster than threads, and it suffers less from other programs. Interrupted, it goes on where it was.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.spec import Json
from training import running
from training.scenes import CHOOSING

if TYPE_CHECKING:
    from torch import Tensor

# The miniature's own config and tokenizer: what is trained fits the manifest that will take it.
MINIATURE = Path(__file__).parent.parent / "manifests" / "sam3_mini"


@dataclass(frozen=True)
class TrainingOptions(running.RunOptions):
    """What determines a run."""

    pictures: int = 4
    questions: int = 4
    boxed: int = 1
    glances: int = 16
    groups: int = 3
    masked: float = 0.5


def main() -> None:
    """Train with the options of the command line."""
    options = running.parse(TrainingOptions, __doc__, MINIATURE / "config.json")
    running.start(make, options)
    if (options.folder / "best").is_dir():
        sys.stdout.write(
            f"the best weights so far: {options.folder / 'best'}\n"
            f"their numbers: python -m training.evaluate {options.folder / 'best'}\n"
            "to build with them, a manifest in manifests/ of two lines:\n"
            "  extends: sam3_mini.yaml\n"
            f"  checkpoint: {{path: {(options.folder / 'best').resolve()}}}\n"
        )


def make(options: TrainingOptions, config: Mapping[str, Json]) -> running.Task:
    """Return what a process learns: to answer questions about pictures."""
    from training import batches, evaluate, learning
    from training.curve import CURVES
    from training.losses import Weights
    from training.network import Learner
    from training.record import Exam

    tokenizer = MINIATURE / "tokenizer.json"
    learner, words = Learner(config, options.groups), batches.Words(tokenizer)

    def losses(step: int, turn: int) -> tuple[Tensor, Mapping[str, float]]:
        batch = batches.make(options.seed, turn, options.pictures, options.questions, words, options.boxed)
        aside = learning.tensors(batches.glance(-options.seed % 2**32, turn, options.glances))
        return learning.judge(learner, learning.tensors(batch), aside, Weights(), options.masked)

    exam = Exam(
        lambda tensors: evaluate.evaluate(evaluate.pytorch(tensors, config), tokenizer, seed=CHOOSING), evaluate.table
    )
    rate = learning.Schedule(options.steps, options.fall, peak=options.peak).rate
    return running.Task(learner, learner.model, losses, rate, exam, CURVES, (tokenizer,))


if __name__ == "__main__":
    main()

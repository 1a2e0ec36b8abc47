"""Trains the click-and-track miniature from a seed alone: weights, config and a curve into a run's folder.

    python -m training.tracking.train training/runs/track --steps 20000

Pictures alone at first, then pictures and clips in turns. One process per core, each with scenes of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from sam3_build.commands.output import outlive_readers
from sam3_build.spec import Json
from training import running
from training.scenes import CHOOSING

CONFIG = Path(__file__).parent / "config.json"


@dataclass(frozen=True)
class TrainingOptions:
    """What determines a run, but for the number of cores' rounding.

    clips_from: the first step with clips; frames: of each clip that is learnt from
    """

    folder: Path
    config: Path
    start: Path | None = None
    steps: int = 20000
    fall: int = 6000
    peak: float = 1e-3
    pictures: int = 6
    objects: int = 3
    clips: int = 2
    frames: int = 5
    clips_from: int = 4000
    horizon: int = 1000
    seed: int = 1
    processes: int = 2
    save_minutes: float = 4.0
    evaluate_minutes: float = 20.0


def main() -> None:
    """Train with the options of the command line."""
    outlive_readers()
    options = parse()
    running.start(work, options, options.folder, options.processes)


def parse() -> TrainingOptions:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--from", dest="start", type=Path, default=None, help="weights to start from (.safetensors)")
    for field in fields(TrainingOptions)[3:]:
        kind = float if isinstance(field.default, float) else int
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    options = TrainingOptions(**vars(parser.parse_args()))
    if problem := running.refuse_held_out(options.seed):
        parser.error(problem)
    return options


def work(rank: int, options: TrainingOptions, store: Path, parent: int) -> None:
    """Run one of the processes, as long as `parent` does; the first one also reports, saves and evaluates."""
    outlive_readers()
    import numpy as np
    import torch

    from training.learning import Average, Schedule
    from training.record import Curves, Exam, RunLog
    from training.tracking import batches, evaluate, learning
    from training.tracking.network import Tracker

    running.meet(rank, options.processes, store, options.seed)
    config: Mapping[str, Json] = json.loads(options.config.read_text())
    learner = learning.Learner(Tracker(config))
    model = learner.tracker.model
    if options.start is not None:
        from safetensors.torch import load_file

        model.load_state_dict(load_file(options.start), strict=True)
    weights = [value for _, value in learner.named_parameters()]
    optimizer = running.adam(learner)
    average = Average(model, options.horizon)
    step = running.resume(options.folder, learner, optimizer, average)
    schedule = Schedule(options.steps, options.fall, peak=options.peak)
    record = None
    if rank == 0:
        exam = Exam(
            lambda tensors: evaluate.evaluate(
                evaluate.of_tensors(tensors, config), evaluate.FEW_SCENES, evaluate.FEW_CLIPS, seed=CHOOSING
            ),
            evaluate.table,
        )
        curves = Curves(
            ("dice", "focal", "iou", "present"), lambda _: True, "scenes and clips that were never trained on"
        )
        record = RunLog(options.folder, asdict(options), config, step, exam, curves)
    signals = running.Stop(parent)
    stop = False
    last_save = last_evaluation = time.monotonic()
    while step < options.steps and not stop:
        turn = step * options.processes + rank
        rng = np.random.default_rng([options.seed, turn, 5])
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        if step >= options.clips_from and step % 2:
            clips = batches.videos(options.seed, turn, options.clips, options.frames)
            loss, parts = learning.on_clips(learner, clips, rng)
        else:
            pictures = batches.pictures(options.seed, turn, options.pictures, options.objects)
            loss, parts = learning.on_pictures(learner, pictures, rng)
        torch.autograd.backward(loss)
        stop = running.add_up(weights, stop=signals.asked)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        average.update(model, step)
        if record is None:
            continue
        # Clips say nothing of what the encoder sees: a column of its own would have gaps.
        shown = {name: float(parts[name].detach()) for name in ("dice", "focal", "iou", "present")}
        record.step(step, options.steps, shown, schedule.rate(step))
        done, now = step == options.steps, time.monotonic()
        if done or stop or now - last_save > 60 * options.save_minutes:
            running.save(options.folder, learner, optimizer, average, step)
            last_save = now
        if done or now - last_evaluation > 60 * options.evaluate_minutes:
            record.evaluate(step, {**model.state_dict(), **average.weights})
            last_evaluation = time.monotonic()
    running.part()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()

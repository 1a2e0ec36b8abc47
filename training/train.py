"""Trains the miniature from a seed alone: writes weights, config, tokenizer and a curve into a run's folder.

    python -m training.train training/runs/mine --steps 5000

One process per core, each with pictures of its own, that add up their gradients: with networks this small that is a
third faster than threads, and it suffers less from other programs. Interrupted, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from sam3_build.commands.output import outlive_readers
from sam3_build.spec import Json
from training import running
from training.scenes import CHOOSING

# The miniature's own config and tokenizer: what is trained fits the manifest that will take it.
MINIATURE = Path(__file__).parent.parent / "manifests" / "sam3_mini"


@dataclass(frozen=True)
class TrainingOptions:
    """What determines a run, but for the number of cores' rounding."""

    folder: Path
    config: Path
    start: Path | None = None
    steps: int = 5000
    fall: int = 2000
    peak: float = 1e-3
    pictures: int = 4
    questions: int = 4
    boxed: int = 1
    glances: int = 16
    groups: int = 3
    masked: float = 0.5
    horizon: int = 1000
    seed: int = 1
    processes: int = 2
    save_minutes: float = 4.0
    evaluate_minutes: float = 15.0


def main() -> None:
    """Train with the options of the command line."""
    outlive_readers()
    options = parse()
    running.start(work, options, options.folder, options.processes)
    if (options.folder / "best").is_dir():
        sys.stdout.write(
            f"the best weights so far: {options.folder / 'best'}\n"
            f"their numbers: python -m training.evaluate {options.folder / 'best'}\n"
            "to build with them, a manifest in manifests/ of two lines:\n"
            "  extends: sam3_mini.yaml\n"
            f"  checkpoint: {{path: {(options.folder / 'best').resolve()}}}\n"
        )


def parse() -> TrainingOptions:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", type=Path, default=MINIATURE / "config.json")
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
    import torch

    from training import evaluate, learning
    from training.batches import Words, glance, make
    from training.curve import CURVES
    from training.losses import Weights
    from training.network import Learner
    from training.record import Exam, RunLog

    running.meet(rank, options.processes, store, options.seed)
    config: Mapping[str, Json] = json.loads(options.config.read_text())
    tokenizer = MINIATURE / "tokenizer.json"
    learner = Learner(config, options.groups)
    if options.start is not None:
        from safetensors.torch import load_file

        learner.model.load_state_dict(load_file(options.start), strict=True)
    weights = [value for _, value in learner.named_parameters()]
    optimizer = running.adam(learner)
    average = learning.Average(learner.model, options.horizon)
    step = running.resume(options.folder, learner, optimizer, average)
    schedule = learning.Schedule(options.steps, options.fall, peak=options.peak)
    words = Words(tokenizer)
    record = None
    if rank == 0:
        exam = Exam(
            lambda tensors: evaluate.evaluate(evaluate.pytorch(tensors, config), tokenizer, seed=CHOOSING),
            evaluate.table,
        )
        record = RunLog(options.folder, asdict(options), config, step, exam, CURVES, (tokenizer,))
    signals = running.Stop(parent)
    stop = False
    last_save = last_evaluation = time.monotonic()
    while step < options.steps and not stop:
        batch = make(
            options.seed, step * options.processes + rank, options.pictures, options.questions, words, options.boxed
        )
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        aside = learning.tensors(glance(-options.seed % 2**32, step * options.processes + rank, options.glances))
        loss, parts = learning.judge(learner, learning.tensors(batch), aside, Weights(), options.masked)
        torch.autograd.backward(loss)
        stop = running.add_up(weights, stop=signals.asked)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        average.update(learner.model, step)
        if record is None:
            continue
        record.step(step, options.steps, parts, schedule.rate(step))
        done, now = step == options.steps, time.monotonic()
        if done or stop or now - last_save > 60 * options.save_minutes:
            running.save(options.folder, learner, optimizer, average, step)
            last_save = now
        if done or now - last_evaluation > 60 * options.evaluate_minutes:
            record.evaluate(step, {**learner.model.state_dict(), **average.weights})
            last_evaluation = time.monotonic()
    running.part()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()

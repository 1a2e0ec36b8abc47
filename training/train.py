"""Trains the miniature from a seed alone: writes weights, config, tokenizer and a curve into a run's folder.

    python -m training.train training/runs/mine --steps 5000

One process per core, each with pictures of its own, that add up their gradients: with networks this small that is a
third faster than threads, and it suffers less from other programs. Interrupted, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.commands.output import outlive_readers
from sam3_build.spec import Json
from training.scenes import CHOOSING, HELD_OUT

if TYPE_CHECKING:
    from torch import Tensor

    from training.learning import Average
    from training.network import Learner

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
    options.folder.mkdir(parents=True, exist_ok=True)
    from torch.multiprocessing.spawn import spawn

    store = options.folder.resolve() / "meeting"
    store.unlink(missing_ok=True)
    context = spawn(work, args=(options, store, os.getpid()), nprocs=options.processes, join=False)  # type: ignore[no-untyped-call]
    running = True
    while running:
        # Ctrl-C reaches the processes too: they finish their step, save and end.
        try:
            running = not context.join()
        except KeyboardInterrupt:
            for process in context.processes:
                if process.is_alive():
                    os.kill(process.pid, signal.SIGINT)
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
    if options.seed in (HELD_OUT, CHOOSING):
        parser.error(f"--seed {options.seed}: the scenes of this seed are for evaluation only; take another")
    return options


def work(rank: int, options: TrainingOptions, store: Path, parent: int) -> None:
    """Run one of the processes, as long as `parent` does; the first one also reports, saves and evaluates."""
    outlive_readers()
    import torch
    from torch import distributed

    from training import learning
    from training.batches import Words, glance, make
    from training.losses import Weights
    from training.network import Learner
    from training.record import RunLog

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=options.processes)
    torch.manual_seed(options.seed)
    config: Mapping[str, Json] = json.loads(options.config.read_text())
    tokenizer = MINIATURE / "tokenizer.json"
    learner = Learner(config, options.groups)
    if options.start is not None:
        from safetensors.torch import load_file

        learner.model.load_state_dict(load_file(options.start), strict=True)
    weights = [value for _, value in learner.named_parameters()]
    matrices = [value for value in weights if value.ndim > 1]
    vectors = [value for value in weights if value.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 1e-2}, {"params": vectors, "weight_decay": 0.0}], lr=1.0, fused=True
    )
    average = learning.Average(learner.model, options.horizon)
    step = resume(options.folder, learner, optimizer, average)
    schedule = learning.Schedule(options.steps, options.fall, peak=options.peak)
    words = Words(tokenizer)
    record = RunLog(options.folder, asdict(options), config, tokenizer, step) if rank == 0 else None
    asked_to_stop: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: asked_to_stop.append(received))
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
        stop = add_up(weights, stop=bool(asked_to_stop) or os.getppid() != parent)
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
            save(options.folder, learner, optimizer, average, step)
            last_save = now
        if done or now - last_evaluation > 60 * options.evaluate_minutes:
            record.evaluate(step, {**learner.model.state_dict(), **average.weights})
            last_evaluation = time.monotonic()
    distributed.barrier()
    distributed.destroy_process_group()


def add_up(weights: Sequence[Tensor], *, stop: bool) -> bool:
    """Replace every gradient by its mean over the processes; return whether any of them wants to stop."""
    import torch
    from torch import distributed

    gradients = [torch.zeros(w.numel()) if w.grad is None else w.grad.flatten() for w in weights]
    flat = torch.cat([*gradients, torch.tensor([float(stop)])])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for weight, part in zip(weights, torch.split(flat[:-1], [w.numel() for w in weights]), strict=True):
        weight.grad = part.view_as(weight)
    return bool(flat[-1] > 0)


def save(folder: Path, learner: Learner, optimizer: object, average: Average, step: int) -> None:
    """Write all that a later run needs to go on; the file is whole or not there."""
    import torch

    state = {
        "learner": learner.state_dict(),
        "optimizer": optimizer.state_dict(),  # type: ignore[attr-defined]
        "average": average.weights,
        "step": step,
        "generator": torch.get_rng_state(),
    }
    torch.save(state, folder / "state.pt.part")
    (folder / "state.pt.part").replace(folder / "state.pt")


def resume(folder: Path, learner: Learner, optimizer: object, average: Average) -> int:
    """Take up the state in `folder`, if there is one; return the number of steps done."""
    import torch

    if not (folder / "state.pt").exists():
        return 0
    state = torch.load(folder / "state.pt", weights_only=True)
    learner.load_state_dict(state["learner"])
    optimizer.load_state_dict(state["optimizer"])  # type: ignore[attr-defined]
    average.weights = state["average"]
    torch.set_rng_state(state["generator"])
    return int(state["step"])


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()

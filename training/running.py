"""What runs of any training share: processes that add up gradients, a state to go on from, an orderly end."""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sam3_build.commands.output import outlive_readers
from sam3_build.spec import Json
from training.record import Curves, Exam, RunLog
from training.scenes import CHOOSING, HELD_OUT

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import AdamW

    from training.learning import Average


@dataclass(frozen=True)
class RunOptions:
    """What every run has; with the task's own options, it determines the weights, but for the cores' rounding.

    config: of the network; start: weights to start from
    fall: the last steps, in which the learning rate falls to nothing; horizon: steps of the moving average
    """

    folder: Path
    config: Path
    start: Path | None = None
    steps: int = 5000
    fall: int = 2000
    peak: float = 1e-3
    horizon: int = 1000
    seed: int = 1
    processes: int = 2
    save_minutes: float = 4.0
    evaluate_minutes: float = 15.0


@dataclass(frozen=True)
class Task:
    """What a run learns.

    model:  whose weights are kept; learner: the same with all that learns beside it
    losses: of (step, turn), where each process has turns of its own: what to minimize, and the parts to note
    rate:   the learning rate of a step
    files:  copied beside weights
    """

    learner: nn.Module
    model: nn.Module
    losses: Callable[[int, int], tuple[Tensor, Mapping[str, float]]]
    rate: Callable[[int], float]
    exam: Exam
    curves: Curves
    files: Sequence[Path] = ()


Options = TypeVar("Options", bound=RunOptions)

# Makes the task of a process, of the options and the network's config.
Make = Callable[[Options, Mapping[str, Json]], Task]


def parse(kind: type[Options], description: str | None, config: Path) -> Options:
    """Return the command line's options; config: the default one."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", type=Path, default=config)
    parser.add_argument("--from", dest="start", type=Path, default=None, help="weights to start from (.safetensors)")
    for field in fields(kind)[3:]:
        number = float if isinstance(field.default, float) else int
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=number, default=field.default)
    options = kind(**vars(parser.parse_args()))
    if options.seed in (HELD_OUT, CHOOSING):
        parser.error(f"--seed {options.seed}: the scenes of this seed are for evaluation only; take another")
    return options


def start(make: Make[Options], options: Options) -> None:
    """Run `learn` in processes until they have ended. Ctrl-C lets them finish their step and save."""
    from torch.multiprocessing.spawn import spawn

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    outlive_readers()
    options.folder.mkdir(parents=True, exist_ok=True)
    store = options.folder.resolve() / "meeting"
    store.unlink(missing_ok=True)
    context = spawn(learn, args=(make, options, store, os.getpid()), nprocs=options.processes, join=False)  # type: ignore[no-untyped-call]
    running = True
    while running:
        # Ctrl-C reaches the processes too: they finish their step, save and end.
        try:
            running = not context.join()
        except KeyboardInterrupt:
            for process in context.processes:
                if process.is_alive():
                    os.kill(process.pid, signal.SIGINT)


def learn(rank: int, make: Make[Options], options: Options, store: Path, parent: int) -> None:
    """Run one of the processes, as long as `parent` does; the first one also reports, saves and evaluates.

    store: the file by which processes find each other
    """
    outlive_readers()
    import torch

    from training.learning import Average

    meet(rank, options.processes, store, options.seed)
    config: Mapping[str, Json] = json.loads(options.config.read_text())
    task = make(options, config)
    learner, model = task.learner, task.model
    if options.start is not None:
        from safetensors.torch import load_file

        model.load_state_dict(load_file(options.start), strict=True)
    weights = [value for _, value in learner.named_parameters()]
    optimizer = adam(learner)
    average = Average(model, options.horizon)
    step = resume(options.folder, learner, optimizer, average)
    record = None
    if rank == 0:
        record = RunLog(options.folder, asdict(options), config, step, task.exam, task.curves, task.files)
    signals = Stop(parent)
    stop = False
    last_save = last_evaluation = time.monotonic()
    while step < options.steps and not stop:
        for group in optimizer.param_groups:
            group["lr"] = task.rate(step)
        loss, parts = task.losses(step, step * options.processes + rank)
        torch.autograd.backward(loss)
        stop = add_up(weights, stop=signals.asked)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        average.update(model, step)
        if record is None:
            continue
        record.step(step, options.steps, parts, task.rate(step))
        done, now = step == options.steps, time.monotonic()
        if done or stop or now - last_save > 60 * options.save_minutes:
            save(options.folder, learner, optimizer, average, step)
            last_save = now
        if done or now - last_evaluation > 60 * options.evaluate_minutes:
            record.evaluate(step, {**model.state_dict(), **average.weights})
            last_evaluation = time.monotonic()
    part()


def meet(rank: int, processes: int, store: Path, seed: int) -> None:
    """Set up one of the processes: one thread, its random numbers, and the group that adds up gradients."""
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=processes)
    torch.manual_seed(seed)


def part() -> None:
    """Wait for the other processes, and leave the group."""
    from torch import distributed

    distributed.barrier()
    distributed.destroy_process_group()


def adam(model: nn.Module) -> AdamW:
    """Return the optimizer of a model's weights: matrices decay. Its learning rate is set before every step."""
    import torch

    weights = [value for _, value in model.named_parameters()]
    matrices = [value for value in weights if value.ndim > 1]
    vectors = [value for value in weights if value.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 1e-2}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1.0, fused=True)


class Stop:
    """Whether this process was asked to end, or the one that started it is gone."""

    def __init__(self, parent: int) -> None:
        """Listen to SIGINT and SIGTERM."""
        self._parent = parent
        self._received: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda received, _: self._received.append(received))

    @property
    def asked(self) -> bool:
        """Whether to end."""
        return bool(self._received) or os.getppid() != self._parent


def add_up(weights: Sequence[Tensor], *, stop: bool) -> bool:
    """Replace every gradient by its mean over the processes; return whether any of them wants to stop.

    A weight that has none in any process gets none: the optimizer then leaves it, and what it knows of it, as they are.
    """
    import torch
    from torch import distributed

    gradients = [torch.zeros(w.numel()) if w.grad is None else w.grad.flatten() for w in weights]
    flat = torch.cat([*gradients, torch.tensor([*(float(w.grad is not None) for w in weights), float(stop)])])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    sizes = [w.numel() for w in weights]
    means, (*learnt, stops) = torch.split(flat[: sum(sizes)], sizes), flat[sum(sizes) :].tolist()
    for weight, mean, has in zip(weights, means, learnt, strict=True):
        weight.grad = mean.view_as(weight) if has else None
    return bool(stops)


def save(folder: Path, learner: nn.Module, optimizer: AdamW, average: Average, step: int) -> None:
    """Write all that a later run needs to go on; the file is whole or not there."""
    import torch

    state = {
        "learner": learner.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average.weights,
        "step": step,
        "generator": torch.get_rng_state(),
    }
    torch.save(state, folder / "state.pt.part")
    (folder / "state.pt.part").replace(folder / "state.pt")


def resume(folder: Path, learner: nn.Module, optimizer: AdamW, average: Average) -> int:
    """Take up the state in `folder`, if there is one; return the number of steps done."""
    import torch

    if not (folder / "state.pt").exists():
        return 0
    state = torch.load(folder / "state.pt", weights_only=True)
    learner.load_state_dict(state["learner"])
    optimizer.load_state_dict(state["optimizer"])
    average.weights = state["average"]
    torch.set_rng_state(state["generator"])
    return int(state["step"])

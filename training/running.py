"""What runs of any training share: processes that add up gradients, a state to go on from, an orderly end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from training.scenes import CHOOSING, HELD_OUT

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import AdamW

    from training.learning import Average

Options = TypeVar("Options")

# A process's number, the options, the file by which processes find each other, and the process that started them.
Work = Callable[[int, Options, Path, int], None]


def refuse_held_out(seed: int) -> str | None:
    """Return what is wrong with a seed to train with, or None."""
    if seed in (HELD_OUT, CHOOSING):
        return f"--seed {seed}: the scenes of this seed are for evaluation only; take another"
    return None


def start(work: Work[Options], options: Options, folder: Path, processes: int) -> None:
    """Run `work` in processes until they have ended. Ctrl-C lets them finish their step and save."""
    from torch.multiprocessing.spawn import spawn

    folder.mkdir(parents=True, exist_ok=True)
    store = folder.resolve() / "meeting"
    store.unlink(missing_ok=True)
    context = spawn(work, args=(options, store, os.getpid()), nprocs=processes, join=False)  # type: ignore[no-untyped-call]
    running = True
    while running:
        # Ctrl-C reaches the processes too: they finish their step, save and end.
        try:
            running = not context.join()
        except KeyboardInterrupt:
            for process in context.processes:
                if process.is_alive():
                    os.kill(process.pid, signal.SIGINT)


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
    """Replace every gradient by its mean over the processes; return whether any of them wants to stop."""
    import torch
    from torch import distributed

    gradients = [torch.zeros(w.numel()) if w.grad is None else w.grad.flatten() for w in weights]
    flat = torch.cat([*gradients, torch.tensor([float(stop)])])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for weight, own in zip(weights, torch.split(flat[:-1], [w.numel() for w in weights]), strict=True):
        weight.grad = own.view_as(weight)
    return bool(flat[-1] > 0)


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

"""Writes a training run's files: losses.csv, evaluations.csv, curve.png, and the weights, last and best."""

from __future__ import annotations

import csv
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.spec import Json
from training.scenes import CHOOSING

if TYPE_CHECKING:
    from torch import Tensor

EVERY = 50

# Kind of question -> metric -> value, from 0 to 1.
Numbers = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Exam:
    """How weights are evaluated: `numbers` of the model's tensors by their checkpoint keys, and these as lines."""

    numbers: Callable[[Mapping[str, Tensor]], Numbers]
    table: Callable[[Numbers], str]


@dataclass(frozen=True)
class Curves:
    """What curve.png shows: the losses of that name, and of an evaluation's numbers those that `shows` takes."""

    losses: Sequence[str]
    shows: Callable[[str], bool]
    title: str


class RunLog:
    """Writes below one run's folder, and prints a line now and then."""

    def __init__(
        self,
        folder: Path,
        options: Mapping[str, object],
        config: Mapping[str, Json],
        step: int,
        exam: Exam,
        curves: Curves,
        files: Sequence[Path] = (),
    ) -> None:
        """Write the run's options; numbers of earlier evaluations are taken up. files: copied beside weights."""
        from rich.console import Console

        self._folder, self._config, self._exam, self._curves, self._files = folder, config, exam, curves, files
        self._console = Console(highlight=False)
        self._sums: dict[str, float] = {}
        self._count = 0
        self._since = time.monotonic()
        self._best = max((row["goal"] for row in self._rows("evaluations.csv")), default=0.0)
        (folder / "options.json").write_text(json.dumps(options, default=str, indent=2) + "\n")
        self._console.print(f"{folder.name}: from step {step}")

    def step(self, step: int, steps: int, parts: Mapping[str, float], rate: float) -> None:
        """Note one step's losses."""
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        # The last step too: a curve is drawn of what is written.
        if step % EVERY and step != steps:
            return
        seconds, self._since = (time.monotonic() - self._since) / self._count, time.monotonic()
        means = {name: value / self._count for name, value in self._sums.items()}
        row = {"step": step, "seconds": seconds, "rate": rate, **means}
        self._append("losses.csv", row)
        text = " ".join(f"{name} {value:.3f}" for name, value in means.items())
        self._console.print(f"{time.strftime('%H:%M:%S')} {step}/{steps} {seconds:.2f} s  {text}", soft_wrap=True)
        self._sums, self._count = {}, 0

    def evaluate(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Evaluate weights on scenes that are for choosing; keep them as the last, and as the best if they are."""
        from safetensors.torch import save_file

        from training.curve import plot

        numbers = self._exam.numbers(tensors)
        flat = {f"{kind}_{name}": value for kind, row in numbers.items() for name, value in row.items()}
        goal = sum(flat.values()) / len(flat)
        self._console.print(f"{time.strftime('%H:%M:%S')} after {step} steps\n{self._exam.table(numbers)}")
        kept = [self._folder / "last"]
        if goal > self._best:
            self._best = goal
            kept.append(self._folder / "best")
        for folder in kept:
            folder.mkdir(exist_ok=True)
            # A copy: two keys may share one tensor, which the format refuses.
            save_file({key: value.clone().contiguous() for key, value in tensors.items()}, folder / "model.safetensors")
            (folder / "config.json").write_text(json.dumps(self._config, indent=2, sort_keys=True) + "\n")
            for file in self._files:
                shutil.copyfile(file, folder / file.name)
            (folder / "step.json").write_text(json.dumps({"step": step, "seed": CHOOSING, **numbers}, indent=2) + "\n")
        # Last: a best one that this file names must exist.
        self._append("evaluations.csv", {"step": step, "goal": goal, **flat})
        plot(self._folder, self._curves)

    def _append(self, name: str, row: Mapping[str, float]) -> None:
        file = self._folder / name
        new = not file.exists()
        if not new and file.open().readline().strip() != ",".join(row):
            sys.exit(f"{file} has other columns than are written now: go on in another folder, with --from")
        with file.open("a", newline="") as stream:
            writer = csv.DictWriter(stream, list(row))
            if new:
                writer.writeheader()
            writer.writerow({key: f"{value:.6g}" for key, value in row.items()})

    def _rows(self, name: str) -> list[dict[str, float]]:
        file = self._folder / name
        if not file.exists():
            return []
        with file.open(newline="") as stream:
            return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]

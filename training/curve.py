"""Draws a run's curve.png: losses by step, and how well the held-out scenes were answered.

python -m training.curve training/runs/mine
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from training.record import Curves

CURVES = Curves(
    ("classes", "overlap", "presence", "dice", "semantic"),
    lambda name: name.endswith("_iou") or name in ("text_count", "text_presence"),
    "500 scenes that were never trained on",
)


def main() -> None:
    """Draw the curve of the run that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    plot(parser.parse_args().folder, CURVES)


def plot(folder: Path, curves: Curves) -> None:
    """Write curve.png from losses.csv and evaluations.csv."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    losses = read(folder / "losses.csv")
    for name in curves.losses:
        left.plot(losses["step"], losses[name], label=name, linewidth=1)
    left.set(xlabel="step", yscale="log", title="losses, unweighted; layers added up")
    left.legend()
    held_out = read(folder / "evaluations.csv")
    for name in held_out:
        if curves.shows(name):
            right.plot(held_out["step"], held_out[name], marker="o", markersize=3, label=name.replace("_", ": "))
    right.set(xlabel="step", ylim=(0, 1), title=curves.title)
    right.grid(alpha=0.3)
    right.legend()
    FigureCanvasAgg(figure).print_png(str(folder / "curve.png"))


def read(file: Path) -> dict[str, list[float]]:
    """Return the columns of a CSV file of numbers."""
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


if __name__ == "__main__":
    main()

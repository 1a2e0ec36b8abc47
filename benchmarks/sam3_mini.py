"""How well the trained miniature answers: mean IoU, exact counts and presence on held-out scenes, beside the goals.

    python benchmarks/sam3_mini.py [scenes] [folder]

Runs, in PyTorch, the networks that get exported. 500 scenes take about a minute on 2 cores.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from training.evaluate import SCENES, evaluate, table

TRAINED = Path(__file__).parents[1] / "manifests" / "sam3_mini_trained"
GOALS = {"text": {"iou": 0.80, "count": 0.80, "presence": 0.95}, "box": {"iou": 0.80}}


def main(scenes: int = SCENES, folder: Path = TRAINED) -> int:
    """Print the table; return 1 when a goal is missed."""
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    began = time.perf_counter()
    numbers = evaluate(tensors, config, folder / "tokenizer.json", scenes)
    took = time.perf_counter() - began
    print(f"{folder.name}: {scenes} held-out scenes, {2 * scenes} questions, {took:.0f} s")
    print(table(numbers))
    missed = [
        f"{kind} {name} {numbers[kind][name]:.3f}, wanted {goal}"
        for kind, goals in GOALS.items()
        for name, goal in goals.items()
        if numbers[kind][name] < goal
    ]
    print("\n".join(["missed:", *missed]) if missed else "all goals reached")
    return int(bool(missed))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.exit(main(*(int(a) for a in arguments[:1]), *(Path(a) for a in arguments[1:2])))

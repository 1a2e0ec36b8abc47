"""How well the trained miniature answers before and after the build: PyTorch, its ONNX in FP32, its ONNX in FP16.

    python benchmarks/sam3_mini.py [scenes]

Takes what `doit build verify` has built of the default manifest. On held-out scenes that training never saw, all sides
are asked the same questions: by words; by words fed as `reference: hf` feeds them (plain); by one positive box; by
words and a positive box (both); by words and a negative box. Printed are mean IoU of the wanted things, exact counts
and presence; and the instance gates of `doit verify`, over all questions at once, of each file against PyTorch. FP16 is
emulated: range parity. Returns 1 when a goal is missed, or FP32 loses anything.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sam3_build.commands.output import outlive_readers
from sam3_build.compare.judge import condition, holds, result_gates
from sam3_build.errors import BuildError
from sam3_build.execution.session import Session, open_session
from sam3_build.families.sam3_image.family import FAMILY
from sam3_build.families.sam3_image.results import find
from sam3_build.params import VerifyParams
from sam3_build.results.instances import statistics as instances
from sam3_build.results.instances.result import RESULT
from sam3_build.spec import BASELINE, Gate
from sam3_build.stages._networks import network_session
from training.batches import Batch
from training.evaluate import GOALS, SCENES, THRESHOLD, Answer, Network, chained, evaluate, load, table
from training.scenes import SIDE

if TYPE_CHECKING:
    from training.evaluate import Array

ROOT = Path(__file__).parents[1]
MINIATURE = ROOT / "manifests" / "sam3_mini"
# What the exported text encoder takes.
TEXT_LENGTH = 32


Remembered = list["Mapping[str, Array]"]


def main(scenes: int = SCENES) -> int:
    """Print a table per side."""
    session, kept, failed = open_session(ROOT, None, os.environ), Remembered(), []
    with ExitStack() as stack:
        sides = {"PyTorch": load(MINIATURE)}
        try:
            for precision in session.manifest.precisions:
                sides[f"ONNX {precision}"] = _files(session, precision, stack)
        except BuildError as error:
            sys.stderr.write(f"{error}\n")
            return 1
        for side, answer in sides.items():
            began, outputs = time.perf_counter(), Remembered()
            numbers = evaluate(_remembering(answer, outputs), MINIATURE / "tokenizer.json", scenes)
            print(f"{side}: {scenes} held-out scenes, {time.perf_counter() - began:.0f} s\n{table(numbers)}")
            failed += [
                f"{side}: {kind} {metric} {numbers[kind][metric]:.3f}, wanted {goal}"
                for kind, goals in GOALS.items()
                for metric, goal in goals.items()
                if numbers[kind][metric] < goal
            ]
            if side == "PyTorch":
                kept = outputs
                continue
            precision = side.partition(" ")[2]
            lines = list(_gates(precision, kept, outputs))
            print("\n".join(lines) + "\n")
            failed += [f"{side}: {line}" for line in lines if precision == BASELINE and line.startswith("  FAIL")]
    print("\n".join(["missed:", *failed]) if failed else "all goals reached; FP32 loses nothing")
    return int(bool(failed))


def _files(session: Session, precision: str, stack: ExitStack) -> Answer:
    """Return what answers by the files that were built."""
    networks: dict[str, Network] = {}
    for component in FAMILY.components:
        action = session.plan.action(f"verify:{component.name}.{precision}")
        record = session.resolver.resolve(f"precision:{component.name}.{precision}").record
        if record is None:
            raise BuildError(f"{component.name}.{precision} is not built, or stale; run: doit build verify")
        inputs = {"onnx": session.store.object_path(record.object)}
        networks[component.name] = stack.enter_context(network_session(VerifyParams.of(action.params), inputs)).run
    return chained({**networks, "text_encoder": _padded(networks["text_encoder"])})


def _padded(network: Network) -> Network:
    """Pad texts as the exported text encoder takes them; no padding counts."""

    def run(arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        missing = TEXT_LENGTH - arrays["input_ids"].shape[1]
        return network({name: np.pad(array, ((0, 0), (0, missing))) for name, array in arrays.items()})

    return run


def _remembering(answer: Answer, outputs: Remembered) -> Answer:
    def run(batch: Batch) -> Mapping[str, Array]:
        outputs.append(answer(batch))
        return outputs[-1]

    return run


def _gates(precision: str, expected: Remembered, actual: Remembered) -> Iterator[str]:
    """Yield a line per instance gate: what `doit verify` asks of the samples, asked of all questions at once."""
    statistics = instances.InstanceStatistics(THRESHOLD)
    for number, pair in enumerate(zip(expected, actual, strict=True)):
        for row in range(len(pair[0]["pred_logits"])):
            place = instances.PictureRow(f"batch{number}", row, number)
            expected_row, actual_row = ({name: array[row] for name, array in outputs.items()} for outputs in pair)
            if statistics.comparable(place, expected_row, actual_row):
                statistics.add(place, *(find(one, (SIDE, SIDE), THRESHOLD) for one in (expected_row, actual_row)))
    yield f"against PyTorch, {statistics.compared} questions, {statistics.expected} instances:"
    metrics = statistics.metrics()
    for gate in result_gates(RESULT, precision, {}):
        value = metrics[gate.metric]
        good = value is not None and holds(gate, value)
        where = "" if good else _outside(statistics, gate)
        shown = "not measured" if value is None else f"{value:.6g}"
        yield f"  {'pass' if good else 'FAIL'}  {gate.metric:12}  {shown:12}  {condition(gate)}  {where}".rstrip()


def _outside(statistics: instances.InstanceStatistics, gate: Gate) -> str:
    """Return how many pairs do not hold a gate of pairs, and the worst one; of other gates, the first few places."""
    where = "; ".join(statistics.where.get(gate.metric, [])[:5])
    if gate.metric not in instances.OF_PAIRS:
        return where
    pairs = [pair for picture in statistics.pictures for pair in picture.get("pairs", [])]
    outside = sum(not holds(gate, pair[gate.metric]) for pair in pairs)
    return f"{outside} of {len(pairs)} pairs; {where}"


if __name__ == "__main__":
    outlive_readers()
    sys.exit(main(*(int(argument) for argument in sys.argv[1:2])))

"""How fast a CPU runs what is built: OpenVINO in each precision, ONNX Runtime FP32 and PyTorch, on a recorded picture.

    doit manifest=MANIFEST build reference
    python benchmarks/cpu_engines.py [MANIFEST] [--rounds N] [--threads N]

The default is sam3_mini_precisions. All get the same threads, in one process, and take turns: a noisy machine disturbs
all alike. Printed are the best and the median of all rounds in milliseconds, of each component on one row and of all
components after one another; then what building took, and bytes. MB are 10**6 bytes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from sam3_build import registry
from sam3_build.errors import BuildError
from sam3_build.execution.session import Session, open_session
from sam3_build.params import ReferenceParams
from sam3_build.pipeline.cases import INPUTS, arrays_of, recorded_cases
from sam3_build.plugins import RunRequest
from sam3_build.stages._torch import open_network
from sam3_build.store.objects import Record
from sam3_build.torch_modules.assemble import compute

ROOT = Path(__file__).parents[1]
TARGET = "openvino"

Feed = Mapping[str, np.ndarray]
Sides = dict[str, Callable[[], object]]


def main(arguments: argparse.Namespace) -> int:
    """Print both tables; 1, and what is missing, when something was not built."""
    import torch

    torch.set_num_threads(arguments.threads)
    session = open_session(ROOT, arguments.manifest, os.environ)
    precisions = session.manifest.targets[TARGET].precisions
    try:
        with ExitStack() as stack, torch.inference_mode():
            sides = {
                name: _sides(session, name, precisions, arguments.threads, stack)
                for name in session.manifest.components
            }
            timings = _measured(sides, arguments.rounds)
        lines = [*_speed(timings), "", *_builds(session, precisions)]
    except BuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    cpu = _record(session, f"build:{next(iter(sides))}.{precisions[0]}.{TARGET}").facts
    print(f"{session.manifest.name} on {cpu['name']}, {cpu.get('requirements')}")
    print(f"{arguments.threads} threads, {arguments.rounds} rounds")
    print("\n".join(lines))
    return 0


def _sides(session: Session, component: str, precisions: tuple[str, ...], threads: int, stack: ExitStack) -> Sides:
    """Return what runs a component on the recorded case of one row that has the most elements, by what runs it."""
    reference = _folder(session, f"reference:{component}")
    feeds = [arrays_of(case, INPUTS) for case in recorded_cases(reference, component)]
    feed = max(
        (f for f in feeds if all(len(a) == 1 for a in f.values())), key=lambda f: sum(a.size for a in f.values())
    )
    return {
        "PyTorch fp32": _pytorch(session, component, feed),
        "ONNX Runtime fp32": _onnxruntime(session, component, feed, threads),
        **{f"OpenVINO {p}": _openvino(session, component, p, feed, threads, stack) for p in precisions},
    }


def _pytorch(session: Session, component: str, feed: Feed) -> Callable[[], object]:
    action = session.plan.action(f"reference:{component}")
    params = ReferenceParams.of(action.params)
    network = open_network(registry.family_code(params.family), params, session.resolver.input_paths(action))
    names = [tensor.name for tensor in params.spec.outputs]
    return lambda: compute(network, feed, names)


def _onnxruntime(session: Session, component: str, feed: Feed, threads: int) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    file = _folder(session, f"precision:{component}.fp32") / f"{component}.fp32.onnx"
    opened = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda: opened.run(None, dict(feed))


def _openvino(
    session: Session, component: str, precision: str, feed: Feed, threads: int, stack: ExitStack
) -> Callable[[], object]:
    stem = f"{component}.{precision}"
    options = {**session.manifest.targets[TARGET].options, "threads": threads}
    built, onnx = _folder(session, f"build:{stem}.{TARGET}"), _folder(session, f"precision:{stem}")
    opened = stack.enter_context(registry.backend(TARGET).session(RunRequest(built, onnx, stem, options)))
    return lambda: opened.run(feed)


def _measured(sides: Mapping[str, Sides], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return component -> side -> milliseconds of each round. The first round of all warms up."""
    found: dict[str, dict[str, list[float]]] = {}
    for number in range(rounds + 1):
        for component, of_component in sides.items():
            for side, run in of_component.items():
                began = time.perf_counter()
                run()
                if number:
                    milliseconds = 1000 * (time.perf_counter() - began)
                    found.setdefault(component, {}).setdefault(side, []).append(milliseconds)
    return found


def _speed(timings: Mapping[str, Mapping[str, list[float]]]) -> Iterator[str]:
    """Yield a line per side. The best of all components together is the sum of their bests."""
    sides = list(next(iter(timings.values())))
    best = {side: sum(min(of_component[side]) for of_component in timings.values()) for side in sides}
    median = {
        side: statistics.median(map(sum, zip(*(of[side] for of in timings.values()), strict=True))) for side in sides
    }
    yield from _row("ms, best / median", *timings, "all of them", "of ONNX Runtime's")
    for side in sides:
        cells = [_shown(of_component[side]) for of_component in timings.values()]
        ratios = (found[side] / found["ONNX Runtime fp32"] for found in (best, median))
        yield from _row(side, *cells, f"{best[side]:.2f} / {median[side]:.2f}", "{:.2f} / {:.2f}".format(*ratios))


def _shown(values: list[float]) -> str:
    return f"{min(values):.2f} / {statistics.median(values):.2f}"


def _builds(session: Session, precisions: tuple[str, ...]) -> Iterator[str]:
    yield from _row("build", *session.manifest.components)
    for precision in precisions:
        facts = [_record(session, f"build:{name}.{precision}.{TARGET}").facts for name in session.manifest.components]
        cells = [f"{f['seconds']:.1f} s, {int(str(f['bytes'])) / 1e6:.2f} MB" for f in facts]
        yield from _row(f"OpenVINO {precision}", *cells)


def _row(first: str, *cells: str) -> Iterator[str]:
    yield f"{first:<20}" + "".join(f"{cell:>24}" for cell in cells)


def _folder(session: Session, action: str) -> Path:
    return session.store.object_path(_record(session, action).object)


def _record(session: Session, action: str) -> Record:
    record = session.resolver.resolve(action).record
    if record is None:
        raise BuildError(f"{action} is not built: run `doit manifest={session.plan.manifest} {action}`")
    return record


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("manifest", nargs="?", default="sam3_mini_precisions")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    sys.exit(main(parser.parse_args()))

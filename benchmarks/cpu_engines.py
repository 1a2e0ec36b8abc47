"""How fast a CPU runs what is built: OpenVINO in each precision, ONNX Runtime FP32 and PyTorch, on a recorded picture.

    doit manifest=MANIFEST build reference
    python benchmarks/cpu_engines.py [MANIFEST] [--rounds N] [--threads N] [--processor-time]

The default is sam3_mini_precisions; sam3_image_random_openvino is the full size. What runs a component has a process of
its own, one after another: at full size, all together took more than 18 GB. Printed are the best and the median of all
rounds in milliseconds, of each component on one row, and their sums; the peak of each process's resident memory; then
what building took, and bytes. MB are 10**6 bytes, GB 10**9. With --processor-time, counted is what all threads of the
process worked, not what passed: with one thread, waiting for a busy machine is out.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
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
PYTORCH, ONNXRUNTIME, OPENVINO = "PyTorch fp32", "ONNX Runtime fp32", "OpenVINO"
NOT_BUILT = "not built"

Feed = Mapping[str, np.ndarray]


def main(arguments: argparse.Namespace) -> int:
    """Print both tables; 1, and what is missing, when no FP32 graph or nothing for OpenVINO was built."""
    session = open_session(ROOT, arguments.manifest, os.environ)
    components = list(session.manifest.components)
    precisions = session.manifest.targets[TARGET].precisions
    sides = [PYTORCH, ONNXRUNTIME, *(f"{OPENVINO} {precision}" for precision in precisions)]
    clock = time.process_time if arguments.processor_time else time.perf_counter
    one = partial(_measured, arguments.manifest, clock=clock, rounds=arguments.rounds, threads=arguments.threads)
    measured: dict[str, dict[str, Measured]] = {name: {} for name in components}
    try:
        builds = list(_builds(session, precisions))
        with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as processes:
            runs = {(c, s): processes.submit(one, c, s) for c in components for s in sides if _is_built(session, c, s)}
            for (component, side), run in runs.items():
                measured[component][side] = run.result()
    except BuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    cpu = _record(session, f"build:{components[0]}.{precisions[0]}.{TARGET}").facts
    print(f"{session.manifest.name} on {cpu['name']}, {cpu.get('requirements')}")
    counted = "processor time" if arguments.processor_time else "time that passed"
    print(f"{arguments.threads} threads, {arguments.rounds} rounds, {counted}")
    print("\n".join([*_speed(measured), "", *builds]))
    return 0


@dataclass(frozen=True)
class Measured:
    """Milliseconds of each round, and the peak of the process in bytes."""

    milliseconds: Sequence[float]
    peak: int


def _measured(
    manifest: str, component: str, side: str, clock: Callable[[], float], rounds: int, threads: int
) -> Measured:
    """Measure one engine of a component in this process. The first round warms up."""
    session = open_session(ROOT, manifest, os.environ)
    found: list[float] = []
    with ExitStack() as stack:
        run = _opened(session, component, side, threads, stack)
        for _ in range(rounds + 1):
            began = clock()
            run()
            found.append(1000 * (clock() - began))
    return Measured(found[1:], 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _is_built(session: Session, component: str, side: str) -> bool:
    """Tell whether an engine is there; PyTorch and the FP32 graph must be."""
    name, _, precision = side.rpartition(" ")
    return name != OPENVINO or session.resolver.resolve(f"build:{component}.{precision}.{TARGET}").record is not None


def _opened(session: Session, component: str, side: str, threads: int, stack: ExitStack) -> Callable[[], object]:
    """Return what runs a component on the recorded case of one row that has the most elements."""
    reference = _folder(session, f"reference:{component}")
    feeds = [arrays_of(case, INPUTS) for case in recorded_cases(reference, component)]
    feed = max(
        (f for f in feeds if all(len(a) == 1 for a in f.values())), key=lambda f: sum(a.size for a in f.values())
    )
    if side == PYTORCH:
        return _pytorch(session, component, feed, threads, stack)
    if side == ONNXRUNTIME:
        return _onnxruntime(session, component, feed, threads)
    return _openvino(session, component, side.rpartition(" ")[2], feed, threads, stack)


def _pytorch(session: Session, component: str, feed: Feed, threads: int, stack: ExitStack) -> Callable[[], object]:
    import torch

    torch.set_num_threads(threads)
    stack.enter_context(torch.inference_mode())
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


def _speed(measured: Mapping[str, Mapping[str, Measured]]) -> Iterator[str]:
    """Yield a line of times per side, then one of peaks. Of all components together, bests and medians are summed."""
    sides = dict.fromkeys(side for of in measured.values() for side in of)
    baseline = _summed(measured, ONNXRUNTIME)
    yield from _row("ms, best / median", *measured, "all of them", "of ONNX Runtime's")
    for side in sides:
        cells = [_shown(_best_and_median(of[side])) if side in of else NOT_BUILT for of in measured.values()]
        if NOT_BUILT not in cells:
            of_all = _summed(measured, side)
            cells += [_shown(of_all), _shown([mine / other for mine, other in zip(of_all, baseline, strict=True)])]
        yield from _row(side, *cells)
    yield ""
    yield from _row("peak", *measured)
    for side in sides:
        peaks = [f"{of[side].peak / 1e9:.2f} GB" if side in of else NOT_BUILT for of in measured.values()]
        yield from _row(side, *peaks)


def _summed(measured: Mapping[str, Mapping[str, Measured]], side: str) -> Sequence[float]:
    return [sum(values) for values in zip(*(_best_and_median(of[side]) for of in measured.values()), strict=True)]


def _best_and_median(measured: Measured) -> Sequence[float]:
    return min(measured.milliseconds), statistics.median(measured.milliseconds)


def _shown(values: Sequence[float]) -> str:
    return " / ".join(f"{value:.2f}" for value in values)


def _builds(session: Session, precisions: tuple[str, ...]) -> Iterator[str]:
    yield from _row("build", *session.manifest.components)
    for precision in precisions:
        stems = [f"{name}.{precision}" for name in session.manifest.components]
        yield from _row(f"{OPENVINO} {precision}", *(_build(session, f"build:{stem}.{TARGET}") for stem in stems))


def _build(session: Session, action: str) -> str:
    record = session.resolver.resolve(action).record
    return f"{record.facts['seconds']:.1f} s, {int(str(record.facts['bytes'])) / 1e6:.2f} MB" if record else NOT_BUILT


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
    parser.add_argument("--processor-time", action="store_true")
    sys.exit(main(parser.parse_args()))

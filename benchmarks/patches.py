"""What simplify and patches gain: nodes and ONNX Runtime CPU latency of each component's graphs, in one run.

First `doit manifest=M export simplify patch` (and `reference`, else inputs are random numbers), then
`python benchmarks/patches.py [M] [--component C]... [--repeat N] [--threads N] [--each]`. A component's graphs are all
loaded and then run in turns, so that a noisy machine disturbs all alike; best and median are printed, and their ratios
to the exported graph. `--each` adds the patches one after another. `bits` says whether a graph gives the bytes of the
graph above it. ONNX Runtime gives its memory back after each run: three vision encoders would not fit else.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from sam3_build.commands.output import outlive_readers
from sam3_build.execution.session import Session, open_session
from sam3_build.graph.files import onnx_file
from sam3_build.pipeline.cases import INPUTS, arrays_of
from sam3_build.stages import patch

ROOT = Path(__file__).parents[1]
Feeds = Mapping[str, np.ndarray]


def object_of(session: Session, action: str) -> Path:
    """Return the folder of what a built action wrote."""
    record = session.resolver.resolve(action).record
    if record is None:
        sys.exit(f"{action} is not built; first run: doit manifest={session.manifest.path} export simplify patch")
    return session.store.object_path(record.object)


def graphs(session: Session, component: str, scratch: Path | None) -> dict[str, Path]:
    """Return the graphs to compare by name; with `scratch`, a graph for each patch added to those before it."""
    paths = {stage: onnx_file(object_of(session, f"{stage}:{component}")) for stage in ("export", "simplify")}
    patches = session.manifest.components[component].patches
    for count in range(1, len(patches) + 1) if scratch else ():
        out = scratch / component / str(count)
        out.mkdir(parents=True)
        patch.run({"component": component, "patches": patches[:count]}, {"onnx": paths["simplify"]}, out)
        paths[f"+ {patches[count - 1]}"] = onnx_file(out)
        gc.collect()
    if patches and not scratch:
        paths["patch"] = onnx_file(object_of(session, f"patch:{component}"))
    return paths


def load(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")  # the arena can shrink
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def inputs(session: Session, component: str, runner: onnxruntime.InferenceSession) -> tuple[str, Feeds]:
    """Return the first sample as the reference recorded it; else random numbers, dynamic dims as profiles want them."""
    reference = session.resolver.resolve(f"reference:{component}").record
    if reference is not None:
        return "recorded inputs", arrays_of(session.store.object_path(reference.object) / "sample0.npz", INPUTS)
    profile = next(iter(session.manifest.shape_profiles.values()))
    random = np.random.default_rng(0)
    feeds: dict[str, np.ndarray] = {}
    for value in runner.get_inputs():
        shape = [dim if isinstance(dim, int) else profile[dim][1] for dim in value.shape]
        if value.type == "tensor(float)":
            feeds[value.name] = random.random(shape, np.float32)
        else:
            feeds[value.name] = np.ones(shape, {"tensor(int64)": np.int64, "tensor(bool)": bool}[value.type])
    return "random inputs", feeds


def compare(session: Session, component: str, given: argparse.Namespace, scratch: Path | None) -> None:
    """Print the table of one component."""
    paths = graphs(session, component, scratch)
    nodes = {name: len(onnx.load(path, load_external_data=False).graph.node) for name, path in paths.items()}
    runners = {name: load(path, given.threads) for name, path in paths.items()}
    kind, feeds = inputs(session, component, next(iter(runners.values())))
    settings = onnxruntime.RunOptions()
    settings.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    times: dict[str, list[float]] = {name: [] for name in runners}
    values: dict[str, list[bytes]] = {}
    for turn in range(given.repeat + 1):
        for name, runner in runners.items():
            began = time.perf_counter()
            result = runner.run(None, feeds, settings)
            took = time.perf_counter() - began
            if turn:
                times[name].append(took)
            else:  # the first run warms up
                values[name] = [value.tobytes() for value in result]
    print(f"\n{component} ({kind})\n{'':26} nodes      best    median   ratio  ratio  bits")
    first, above = next(iter(times.values())), None
    for name, seconds in times.items():
        best, median = min(seconds), statistics.median(seconds)
        same = "" if above is None else "same" if values[name] == values[above] else "other"
        ratios = f"{best / min(first):7.3f}{median / statistics.median(first):7.3f}"
        print(f"{name:26}{nodes[name]:6}{best * 1000:8.1f}ms{median * 1000:8.1f}ms {ratios}  {same}", flush=True)
        above = name


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("manifest", nargs="?")
    parser.add_argument("--component", action="append", help="only these; else all of the manifest")
    parser.add_argument("--repeat", type=int, default=5, help="timed runs of each graph, after one to warm up")
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime; one is steadiest on a shared machine")
    parser.add_argument("--each", action="store_true", help="add the patches one after another")
    given = parser.parse_args()
    session = open_session(ROOT, given.manifest, os.environ)
    print(
        f"{session.manifest.name}: {given.repeat} runs each, in turns, {given.threads} threads; "
        f"onnxruntime {onnxruntime.__version__}, "
        f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the start"
    )
    for component in given.component or session.manifest.components:
        with tempfile.TemporaryDirectory() as scratch:
            compare(session, component, given, Path(scratch) if given.each else None)
            gc.collect()


if __name__ == "__main__":
    outlive_readers()
    main()

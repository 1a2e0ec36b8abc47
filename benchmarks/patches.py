"""What simplify and patches gain: nodes and ONNX Runtime CPU latency of each component's graphs, in one run.

First `doit manifest=M export simplify patch` (and `reference`, else inputs are random numbers), then
`python benchmarks/patches.py [M] [--component C]... [--repeat N] [--threads N] [--each] [--openvino]`. A component's
graphs are all loaded and then run in turns, so that a noisy machine disturbs all alike; best and median are printed,
and their ratios to the exported graph on the same runtime. `--each` adds the patches one after another, `--openvino`
runs all graphs on OpenVINO as well. `bits` says whether a graph gives the bytes of the graph above it. ONNX Runtime
gives its memory back after each run: three vision encoders would not fit else.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
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
Runner = Callable[[Feeds], list[np.ndarray]]


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


def on_onnxruntime(path: Path, threads: int) -> Runner:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")  # the arena can shrink
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    settings = onnxruntime.RunOptions()
    settings.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return lambda feeds: session.run(None, dict(feeds), settings)


def on_openvino(path: Path, threads: int) -> Runner:
    import openvino

    properties = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    request = openvino.Core().compile_model(path, "CPU", properties).create_infer_request()

    def run(feeds: Feeds) -> list[np.ndarray]:
        request.infer(dict(feeds))
        return [tensor.data.copy() for tensor in request.output_tensors]

    return run


def inputs(session: Session, component: str, graph: Path) -> tuple[str, Feeds]:
    """Return the first sample as the reference recorded it; else random numbers, dynamic dims as profiles want them."""
    reference = session.resolver.resolve(f"reference:{component}").record
    if reference is not None:
        return "recorded inputs", arrays_of(session.store.object_path(reference.object) / "sample0.npz", INPUTS)
    profile = next(iter(session.manifest.shape_profiles.values()))
    random = np.random.default_rng(0)
    feeds: dict[str, np.ndarray] = {}
    for value in onnx.load(graph, load_external_data=False).graph.input:
        kind = value.type.tensor_type
        shape = [dim.dim_value or profile[dim.dim_param][1] for dim in kind.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        feeds[value.name] = random.random(shape, np.float32) if dtype == np.float32 else np.ones(shape, dtype)
    return "random inputs", feeds


def compare(session: Session, component: str, given: argparse.Namespace, scratch: Path | None) -> None:
    """Print the table of one component."""
    paths = graphs(session, component, scratch)
    nodes = {name: len(onnx.load(path, load_external_data=False).graph.node) for name, path in paths.items()}
    loaders = {"ONNX Runtime": on_onnxruntime} | ({"OpenVINO": on_openvino} if given.openvino else {})
    runners = {(of, name): load(path, given.threads) for of, load in loaders.items() for name, path in paths.items()}
    kind, feeds = inputs(session, component, paths["export"])
    times: dict[tuple[str, str], list[float]] = {name: [] for name in runners}
    values: dict[tuple[str, str], list[bytes]] = {}
    for turn in range(given.repeat + 1):
        for name, runner in runners.items():
            began = time.perf_counter()
            result = runner(feeds)
            took = time.perf_counter() - began
            if turn:
                times[name].append(took)
            else:  # the first run warms up
                values[name] = [value.tobytes() for value in result]
    for of in loaders:
        print(f"\n{component} ({kind}), {of}\n{'':26} nodes      best    median   ratio  ratio  bits")
        first, above = times[of, "export"], None
        for name in paths:
            best, median = min(times[of, name]), statistics.median(times[of, name])
            same = "" if above is None else "same" if values[of, name] == values[of, above] else "other"
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
    parser.add_argument("--openvino", action="store_true", help="run all graphs on OpenVINO as well")
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

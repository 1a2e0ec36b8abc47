"""Trial: precision and verify in one worker; a graph, nodes to keep in FP32 and cases in, `statistics.json` alone out.

What runs is the emulation of the graph: ONNX Runtime's CPU alone hides what overflows between two nodes.

A search makes dozens of these. As two ordinary actions each would leave a graph in the store, a gigabyte of a large
component; here it lies in the worker's own folder and goes with it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from sam3_build import graph, registry
from sam3_build.emulation import emulate
from sam3_build.plugins import Memory, Stage
from sam3_build.recorded_cases import recorded_cases
from sam3_build.spec import Json
from sam3_build.stages import precision, verify


def run(params: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> Mapping[str, Json]:
    """Write `statistics.json` as verify does; return the facts of precision and of verify.

    params: component; typed and measured, the parameters of the precision and the verify action; cases, how many of
    the recorded ones (None: all). inputs: those of both actions; `onnx` is the precision's
    """
    typed, measured = params["typed"], params["measured"]
    assert isinstance(typed, Mapping) and isinstance(measured, Mapping)
    with TemporaryDirectory(dir=out.parent) as scratch:
        typed_as, runs, cases, statistics = (Path(scratch) / name for name in ("typed", "runs", "cases", "statistics"))
        for folder in (typed_as, runs, cases, statistics):
            folder.mkdir()
        for case in recorded_cases(inputs["reference"], params["cases"]):
            (cases / case.name).symlink_to(case)
        facts = precision.run(typed, inputs, typed_as)
        name = f"{typed['component']}.{typed['precision']}.onnx"
        rounded = _emulate(typed_as / name, runs / name, registry.precision(str(typed["precision"])).onnx_type)
        found = verify.run(measured, {**inputs, "onnx": runs if rounded else typed_as, "reference": cases}, statistics)
        shutil.copyfile(statistics / "statistics.json", out / "statistics.json")
    return {"typed": facts, "rounded": rounded, "measured": found}


def _emulate(shipped: Path, target: Path, low: str) -> int:
    """Write a file's emulation under its name, where it has a low type; return how many tensors are rounded."""
    model = graph.load(shipped)
    if rounded := 0 if low == "FLOAT" else emulate(model, low):
        graph.save(model, target)
    return rounded


STAGE = Stage(
    name="trial",
    summary="Measure a graph with some nodes in FP32",
    tools=("ml_dtypes", "numpy", "onnx", "onnx-ir", "onnxruntime", "polygraphy"),
    run=run,
    memory=Memory(base=700_000_000, weights=2.6, activations=2.6),
)

"""Takes a component's FP32 graph and another form of it, returns by how much they differ at each block boundary.

The tensors that leave a block become outputs of both. The FP32 graph runs first, on ONNX Runtime's CPU, and what it
computes waits on disk, so that one model and one case are in memory at a time. Judges nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from sam3_build.compare.statistics import OutputStatistics
from sam3_build.errors import BuildError
from sam3_build.graph import files
from sam3_build.graph.blocks import Block, blocks
from sam3_build.params import BuildParams, LocalizeParams, NetworkParams
from sam3_build.pipeline.cases import INPUTS, arrays_of, opened, recorded_cases
from sam3_build.pipeline.network import Arrays
from sam3_build.plugins import ONNX, Memory, Stage
from sam3_build.spec import BASELINE, Json
from sam3_build.stages import build
from sam3_build.stages._networks import open_network

if TYPE_CHECKING:
    from onnx_ir import Model


def run(document: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> Mapping[str, Json]:
    """Write `depth.json`: statistics of the outputs, and of every tensor that leaves a block, block by block.

    document: LocalizeParams. An engine is built here, from the graph with its new outputs
    inputs: fp32 and onnx, the folders of the two graphs; reference, a folder of `<case>.npz` with `inputs/<name>`
    """
    params = LocalizeParams.of(document)
    component, precision = params.component, params.precision
    cases = recorded_cases(inputs["reference"], component)
    with TemporaryDirectory(dir=out.parent) as scratch:
        place = {role: Path(scratch) / role for role in ("fp32", "onnx", "built", "expected")}
        for folder in place.values():
            folder.mkdir()
        model = files.load(inputs["fp32"] / f"{component}.{BASELINE}.onnx")
        found = blocks(model)
        _tap(model, found, place["fp32"] / f"{component}.{BASELINE}.onnx")
        model = files.load(inputs["onnx"] / f"{component}.{precision}.onnx")
        files.infer_types(model)
        _tap(model, found, place["onnx"] / f"{component}.{precision}.onnx")
        del model
        fed = []
        baseline = NetworkParams(
            component=component,
            precision=BASELINE,
            profiles=params.profiles,
            row_dim=params.row_dim,
            row_axes=params.row_axes,
        )
        for case, outputs in _run(baseline, {"onnx": place["fp32"]}, cases):
            _save(place["expected"] / f"{case}.npz", outputs)
            fed.append(case)
        if not fed:
            raise BuildError(f"no recorded case of {component} fits a shape profile of the engine")
        if params.backend:
            _build(params, params.backend, {**inputs, "onnx": place["onnx"]}, place["built"])
        measured: dict[str, OutputStatistics] = {}
        for case, outputs in _run(params, place, cases):
            with opened(place["expected"] / f"{case}.npz") as expected:
                _compare(case, outputs, expected, measured)
    summaries = {name: statistics.summary() for name, statistics in measured.items()}
    depth: dict[str, Json] = {
        "component": component,
        "precision": precision,
        "cases": fed,
        "blocks": [_described(block, summaries) for block in found],
        "outputs": {name: summary for name, summary in summaries.items() if not name.startswith(TAP)},
    }
    (out / "depth.json").write_text(json.dumps(depth, indent=1, allow_nan=False) + "\n")
    return {"cases": len(fed), "blocks": len(found)}


def _build(params: NetworkParams, backend: str, inputs: Mapping[str, Path], out: Path) -> None:
    engine = BuildParams(
        component=params.component,
        precision=params.precision,
        backend=backend,
        options=params.options,
        profiles=params.profiles,
    )
    build.run(engine.document(), inputs, out)


# What the new outputs are called: this, then the tensor that leaves a block.
TAP = "boundary:"


def _tap(model: Model, found: Iterable[Block], path: Path) -> None:
    """Write `model`, whose types are inferred, to `path` with each boundary as one more output, in FP32 in any case.

    A tensor that this form of the graph lacks is left out; one that is an output already stays it.
    """
    import onnx_ir as ir

    values = {value.name: value for node in model.graph for value in node.outputs}
    outputs = {value.name for value in model.graph.outputs}
    for tensor in (t for block in found for t in block.leaves if t in values and t not in outputs):
        cast = ir.node("Cast", [values[tensor]], {"to": ir.DataType.FLOAT}, name=f"{TAP}{tensor}")
        tap = cast.outputs[0]
        tap.name, tap.type, tap.shape = f"{TAP}{tensor}", ir.TensorType(ir.DataType.FLOAT), values[tensor].shape
        model.graph.append(cast)
        model.graph.outputs.append(tap)
    files.save(model, path)


def _run(params: NetworkParams, inputs: Mapping[str, Path], cases: Sequence[Path]) -> Iterator[tuple[str, Arrays]]:
    """Yield what the model computes from recorded inputs, by the name of the case, or of its group of rows.

    Both forms of the graph get a case's rows in the groups that the engine takes: a boundary's first dim need not be
    that of the rows, so what groups give cannot be joined.
    """
    with open_network(params, inputs) as network:
        for case in cases:
            feed = arrays_of(case, INPUTS)
            if why := network.misfit(feed):
                logging.getLogger(__name__).info("case %s is not fed: %s", case.stem, why)
                continue
            groups = network.split(feed, case.stem)
            for number, rows in enumerate(groups):
                part = feed if len(groups) == 1 else network.picked(feed, rows)
                name = case.stem if len(groups) == 1 else f"{case.stem}.{number}"
                logging.getLogger(__name__).info("%s: case %s", params.stem, name)
                yield name, network.run(part, name)


def _save(path: Path, arrays: Arrays) -> None:
    import numpy as np

    np.savez(path, allow_pickle=False, **dict(arrays))


def _compare(case: str, actual: Arrays, expected: Arrays, measured: dict[str, OutputStatistics]) -> None:
    """Add one case to the statistics of what both have."""
    for name in (name for name in expected if name in actual):
        reference = expected[name]
        measured.setdefault(name, OutputStatistics(reference.dtype.name)).add(case, actual[name], reference)


def _described(block: Block, summaries: Mapping[str, Json]) -> dict[str, Json]:
    tensors: dict[str, Json] = {
        tensor: {"node": node, "statistics": summaries.get(f"{TAP}{tensor}") or summaries.get(tensor)}
        for tensor, node in block.leaves.items()
    }
    return {"name": block.name, "after": block.after, "tensors": tensors}


STAGE = Stage(
    name="localize",
    summary="Measure at each block boundary",
    tools=("ml_dtypes", "numpy", "onnx", "onnx-ir", "onnxruntime"),
    run=run,
    memory=Memory(base=600_000_000, weights=2.6, activations=3.1),
    imports=ONNX,
)

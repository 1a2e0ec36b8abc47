"""Takes a component's FP32 graph and recorded cases, returns how large the tensors of each node become.

The graph runs node by node on ONNX Runtime's CPU, and a tensor is let go after its last reader: of a network whose
attention scores take gigabytes, no more than a few tensors are in memory at a time. Only nodes that the precision
makes low are listed, in the graph's order.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from sam3_build import registry
from sam3_build.errors import BuildError
from sam3_build.graph import files, keep_fp32
from sam3_build.graph.fingerprint import fingerprint
from sam3_build.params import PrecisionParams, RangesParams
from sam3_build.pipeline.cases import INPUTS, arrays_of, recorded_cases
from sam3_build.plugins import ONNX, Memory, Stage
from sam3_build.spec import Json
from sam3_build.stages import precision, quantize

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    import onnxruntime
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

# These take time: each gets threads of its own, and its session is not kept, for there are hundreds.
PRODUCTS = ("Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul")


@dataclass
class Ranges:
    """The largest finite magnitude of each floating tensor, over all cases, and which of them are weights."""

    largest: dict[str, float] = field(default_factory=dict)
    weights: set[str] = field(default_factory=set)

    def add_weight(self, name: str, array: Array) -> None:
        """Take in a weight, which is the same in every case."""
        if name not in self.weights:
            self.weights.add(name)
            self.add(name, array)

    def add(self, name: str, array: Array) -> None:
        """Take in a tensor of one case; what is not FP32 is left out."""
        import numpy as np

        if array.dtype != np.float32 or not array.size:
            return
        high, low = float(array.max()), float(array.min())
        if not np.isfinite((high, low)).all():
            finite = array[np.isfinite(array)]
            high, low = (float(finite.max()), float(finite.min())) if finite.size else (0.0, 0.0)
        self.largest[name] = max(self.largest.get(name, 0.0), high, -low)


def run(document: Mapping[str, Json], inputs: Mapping[str, Path], out: Path) -> Mapping[str, Json]:
    """Write `ranges.json`: the digest of the graph's structure, the low type's limits, and per node what it meets.

    document: RangesParams
    inputs: those of the precision action, and `reference`, a folder of `<case>.npz` with arrays `inputs/<name>`
    """
    import ml_dtypes
    import onnx_ir as ir

    params = RangesParams.of(document)
    recipe = registry.precision(params.precision)
    model = files.load(inputs["onnx"])
    limit = least = None
    if recipe.quantizes:  # a scale fits every range
        low = frozenset(quantize.choose(model, recipe, keep_fp32.kept(model, recipe, params.typed))[0])
    else:
        kind = ir.DataType[recipe.onnx_type]
        with TemporaryDirectory(dir=out.parent) as scratch:
            low = _low_nodes(params.typed, inputs, Path(scratch), kind)
        numbers = ml_dtypes.finfo(kind.numpy())  # type: ignore[no-untyped-call]
        limit, least = float(numbers.max), float(numbers.smallest_subnormal) / 2
    if not low:
        raise BuildError(
            f"{params.typed.stem}: the recipe puts no node into a lower type, so there is nothing to search for"
        )
    ranges = Ranges()
    cases = recorded_cases(inputs["reference"], params.component, params.cases)
    runs = _NodeByNode(model)
    for case in cases:
        logging.getLogger(__name__).info("case %s", case.stem)
        runs.run(case, ranges)
    nodes = [_described(node, ranges, limit, least) for node in model.graph if node.name in low]
    found: dict[str, Json] = {"graph": fingerprint(model), "limit": limit, "least": least, "nodes": nodes}
    (out / "ranges.json").write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
    return {"cases": len(cases), "nodes": len(nodes), "beyond": sum(bool(node["beyond"]) for node in nodes)}


def _low_nodes(typed: PrecisionParams, inputs: Mapping[str, Path], scratch: Path, kind: ir.DataType) -> frozenset[str]:
    """Return the nodes of the source graph that the recipe puts into the type `kind`: what it writes, read back."""
    if kind.name == "FLOAT":
        return frozenset()
    precision.run({**typed.document(), "require_low": False}, inputs, scratch)
    source = {node.name for node in files.load(inputs["onnx"]).graph}
    model = files.load(scratch / f"{typed.stem}.onnx")
    files.infer_types(model)
    low = (node.name for node in model.graph if any(value.dtype == kind for value in node.outputs))
    return frozenset(name for name in low if name in source and name)


def _described(node: ir.Node, ranges: Ranges, limit: float | None, least: float | None) -> dict[str, Json]:
    """Return a node's name, the largest magnitude that it reads or writes and where, and whether a rule names it.

    limit, least: the largest number of the low type, and half its smallest one; None where a scale fits any range
    """
    names = [value.name for value in (*node.inputs, *node.outputs) if value is not None and value.name]
    tensor = max(names, key=lambda name: ranges.largest.get(name, 0.0), default=None)
    largest = ranges.largest.get(tensor or "", 0.0)
    # Half the smallest number of a type rounds to zero.
    weights = [name for name in names if name in ranges.weights]
    vanishing = [name for name in weights if least and 0 < ranges.largest.get(name, 0.0) <= least]
    beyond = "overflow" if limit and largest > limit else "vanishing weight" if vanishing else None
    if beyond == "vanishing weight":
        tensor, largest = vanishing[0], ranges.largest[vanishing[0]]
    return {"name": node.name, "operator": node.op_type, "largest": largest, "tensor": tensor, "beyond": beyond}


class _NodeByNode:
    """Runs a graph one node at a time. Weights are fed like any other tensor, so that sessions hold none."""

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._sessions: dict[tuple[object, ...], onnxruntime.InferenceSession] = {}
        self._readers = Counter(value for node in model.graph for value in node.inputs if value is not None)

    def run(self, case: Path, ranges: Ranges) -> None:
        """Feed the inputs of one recorded case, and add every floating tensor to `ranges`."""
        recorded = arrays_of(case, INPUTS)
        known: dict[ir.Value, Array] = {value: recorded[value.name or ""] for value in self._model.graph.inputs}
        left = Counter(self._readers)
        for value, array in known.items():
            ranges.add(value.name or "", array)
        for node in self._model.graph:
            feeds = {value.name or "": self._value(value, known, ranges) for value in node.inputs if value is not None}
            for value, array in zip(self._written(node), self._run(node, feeds), strict=True):
                ranges.add(value.name or "", array)
                if left[value]:
                    known[value] = array
            for value in (value for value in node.inputs if value is not None):
                left[value] -= 1
                if not left[value]:
                    known.pop(value, None)

    def _value(self, value: ir.Value, known: Mapping[ir.Value, Array], ranges: Ranges) -> Array:
        if value in known:
            return known[value]
        assert value.const_value is not None
        array = value.const_value.numpy()
        ranges.add_weight(value.name or "", array)
        return array

    def _written(self, node: ir.Node) -> Iterator[ir.Value]:
        return (value for value in node.outputs if value.name)

    def _run(self, node: ir.Node, feeds: Mapping[str, Array]) -> list[Array]:
        # ONNX Runtime wants to know how long a list of sizes is before it sees one; other dims may be any.
        lists = {name: array.shape for name, array in feeds.items() if array.ndim == 1 and array.dtype.kind == "i"}
        kind = (node, *lists.items())
        session = self._sessions.get(kind) or self._session(node, feeds, lists)
        if node.op_type not in PRODUCTS:
            self._sessions[kind] = session
        found: list[Array] = session.run(None, dict(feeds))
        return found

    def _session(
        self, node: ir.Node, feeds: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]
    ) -> onnxruntime.InferenceSession:
        import onnx
        import onnx_ir
        import onnxruntime
        from onnx import helper

        interface = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), shapes.get(name, [None] * array.ndim)
            )
            for name, array in feeds.items()
        ]
        written = [onnx.ValueInfoProto(name=value.name) for value in self._written(node)]
        body = helper.make_graph([onnx_ir.serde.serialize_node(node)], "node", interface, written)
        opsets = [helper.make_opsetid(domain, version) for domain, version in self._model.graph.opset_imports.items()]
        model = helper.make_model(body, opset_imports=opsets, ir_version=self._model.ir_version)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.enable_cpu_mem_arena = False  # each session would keep what its largest tensor took
        if node.op_type not in PRODUCTS:
            options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


STAGE = Stage(
    name="ranges",
    summary="Measure how large the tensors of a graph become",
    tools=("ml_dtypes", "numpy", "onnx", "onnx-ir", "onnxruntime"),
    run=run,
    memory=Memory(base=500_000_000, weights=2.2, activations=3.2),
    imports=ONNX,
)

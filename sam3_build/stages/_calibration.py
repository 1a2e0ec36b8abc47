"""Takes a graph, tensors of it and recorded cases, returns the largest magnitude that each tensor has in any case.

The graph runs as a whole, as ONNX Runtime's own calibrator runs it, and gives the same numbers to the last bit. That
one keeps the inputs and outputs of all products until the run ends, which takes more than 24 GB at SAM 3's full size.
Here each tensor is reduced where it is computed, before it is let go.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.graph import files
from sam3_build.pipeline.cases import INPUTS, arrays_of

if TYPE_CHECKING:
    import onnx_ir as ir

REDUCTIONS = ("ReduceMin", "ReduceMax")


def magnitudes(model: ir.Model, tensors: Collection[str], cases: Sequence[Path], scratch: Path) -> dict[str, float]:
    """Return tensor -> its largest magnitude. The model is changed; `scratch` is an empty folder.

    tensors: names of FP32 inputs and of what nodes of the graph write
    cases:   files with arrays `inputs/<name>`, at least one
    """
    import onnxruntime

    _reduce(model, tensors)
    files.save(model, scratch / "measured.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Nodes run as they are listed. By default what nothing else waits for, as a reduction, comes last.
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    options.enable_cpu_mem_arena = False
    session = onnxruntime.InferenceSession(str(scratch / "measured.onnx"), options, providers=["CPUExecutionProvider"])
    found = dict.fromkeys(tensors, 0.0)
    for case in cases:
        reduced = iter(session.run(None, arrays_of(case, INPUTS)))
        for name, low, high in zip(tensors, reduced, reduced, strict=True):
            found[name] = max(found[name], -float(low), float(high))
    return found


def _reduce(model: ir.Model, tensors: Collection[str]) -> None:
    """Make the smallest and largest value of each tensor the only outputs, each computed right behind its tensor."""
    import onnx_ir as ir

    graph = model.graph
    by_name = {value.name: value for node in graph for value in node.outputs}
    by_name |= {value.name: value for value in graph.inputs}
    first = next(iter(graph))
    graph.outputs.clear()
    for name in tensors:
        value = by_name[name]
        nodes = [ir.node(kind, [value], {"keepdims": 0}, name=f"{name}/{kind}") for kind in REDUCTIONS]
        for node in nodes:
            written = node.outputs[0]
            written.name, written.dtype, written.shape = f"{name}/{node.op_type}:0", ir.DataType.FLOAT, ir.Shape(())
            graph.outputs.append(written)
        producer = value.producer()
        if producer is None:
            graph.insert_before(first, nodes)
        else:
            graph.insert_after(producer, nodes)

"""A graph in a low type in; an FP32 graph that rounds wherever the first one would out, for runtimes without kernels.

Every node computes in FP32 on rounded operands and its result is rounded: what a kernel does that accumulates in FP32.
What fused kernels keep in FP32, or round more often, it does not show. Models are `onnx_ir.Model`, changed in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sam3_build.graph import infer_types
from sam3_build.operator_types import MOVERS, TYPE_ATTRIBUTES

if TYPE_CHECKING:
    import onnx_ir as ir


def emulate(model: ir.Model, onnx_type: str) -> int:
    """Turn every tensor of `onnx_type` into FP32 with that type's values; return how many tensors are rounded.

    Weights keep their type and size in the file, each behind a cast to FP32. A result is cast down and up again; that
    pair is what rounds, and a runtime's optimizer must not remove it. What only moves values needs none.
    """
    import onnx_ir as ir

    low = ir.DataType[onnx_type]
    infer_types(model)
    graph = model.graph
    position = {node: index for index, node in enumerate(graph)}
    rounded = 0
    for weight in [value for value in graph.initializers.values() if value.dtype == low]:
        readers = list(weight.uses())
        first = min((reader for reader, _ in readers), key=position.__getitem__, default=None)
        if first is not None:
            up = _cast(weight, ir.DataType.FLOAT, f"{first.name}.{weight.name}.up")
            graph.insert_before(first, up)
            for reader, index in readers:
                reader.replace_input_with(index, up.outputs[0])
    for node in list(graph):
        for value in [value for value in node.outputs if value.dtype == low]:
            rounded += 1
            if node.op_type in MOVERS:
                value.type = ir.TensorType(ir.DataType.FLOAT)
                continue
            readers = list(value.uses())
            last = node
            if node.op_type != "Cast":
                _retarget(node)
                value.type = ir.TensorType(ir.DataType.FLOAT)
                last = _cast(value, low, f"{node.name}.{value.index()}.down")
                graph.insert_after(node, last)
            up = _cast(last.outputs[0], ir.DataType.FLOAT, f"{node.name}.{value.index()}.up")
            graph.insert_after(last, up)
            for reader, index in readers:
                reader.replace_input_with(index, up.outputs[0])
    return rounded


def _cast(value: ir.Value, to: ir.DataType, name: str) -> ir.Node:
    import onnx_ir as ir

    cast = ir.node("Cast", [value], {"to": to.value}, name=name)
    cast.outputs[0].name = f"{name}:0"
    cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(to), value.shape
    return cast


def _retarget(node: ir.Node) -> None:
    """Make a node whose output type is an attribute write FP32."""
    import numpy as np
    import onnx_ir as ir

    name = TYPE_ATTRIBUTES.get(node.op_type)
    if name is None:
        return
    if name == "value":
        fill = node.attributes[name].as_tensor().numpy().astype(np.float32)
        node.attributes[name] = ir.AttrTensor(name, ir.Tensor(fill))
    else:
        node.attributes[name] = ir.AttrInt64(name, ir.DataType.FLOAT.value)

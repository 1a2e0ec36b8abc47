"""Takes a FLOAT16 or BFLOAT16 file, returns an FP32 graph that rounds wherever it would, for ONNX Runtime's CPU.

That runtime has few kernels for either type: between nodes without one it drops the casts and computes in FP32, so that
neither overflow nor rounding would show. Here every node computes in FP32 on rounded operands and its result is
rounded, as by a kernel that accumulates in FP32. What fused kernels do otherwise, it does not show.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.graph import files
from sam3_build.graph.schemas import MOVERS, TYPE_ATTRIBUTES

if TYPE_CHECKING:
    import onnx_ir as ir

LOW = ("FLOAT16", "BFLOAT16")


def emulates(onnx_type: str) -> bool:
    """Tell whether a file of this type is run as an FP32 emulation, since ONNX Runtime's CPU lacks its kernels."""
    return onnx_type in LOW


def write_emulation(shipped: Path, folder: Path) -> Path | None:
    """Write `<stem>.emulated.onnx` into `folder`; None when `shipped` has no low type, and so runs as it is."""
    model = files.load(shipped)
    if not emulate(model):
        return None
    path = folder / f"{shipped.stem}.emulated.onnx"
    files.save(model, path)
    files.check(path, path.stem)
    return path


def emulate(model: ir.Model) -> int:
    """Turn every low tensor of `model` into FP32 with the low type's values, in place; return how many.

    Weights keep their type and size in the file, each behind a cast to FP32. A result is cast down and up again; that
    pair is what rounds, and a runtime's optimizer must not remove it. What only moves values needs none.
    """
    import onnx_ir as ir

    files.infer_types(model)
    nodes = model.graph
    position = {node: index for index, node in enumerate(nodes)}
    rounded = 0
    for weight in [value for value in nodes.initializers.values() if _is_low(value)]:
        rounded += 1
        readers = list(weight.uses())
        first = min((reader for reader, _ in readers), key=position.__getitem__, default=None)
        if first is not None:
            up = _cast(weight, ir.DataType.FLOAT, f"{first.name}.{weight.name}.up")
            nodes.insert_before(first, up)
            for reader, index in readers:
                reader.replace_input_with(index, up.outputs[0])
    for node in list(position):
        for value in [value for value in node.outputs if _is_low(value)]:
            rounded += 1
            low = value.dtype
            assert low is not None
            if node.op_type in MOVERS:
                value.type = ir.TensorType(ir.DataType.FLOAT)
                continue
            readers = list(value.uses())
            last = node
            if node.op_type != "Cast":
                _retarget(node)
                value.type = ir.TensorType(ir.DataType.FLOAT)
                last = _cast(value, low, f"{node.name}.{value.index()}.down")
                nodes.insert_after(node, last)
            up = _cast(last.outputs[0], ir.DataType.FLOAT, f"{node.name}.{value.index()}.up")
            nodes.insert_after(last, up)
            for reader, index in readers:
                reader.replace_input_with(index, up.outputs[0])
    return rounded


def _is_low(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.name in LOW


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

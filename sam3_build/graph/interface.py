"""The inputs and outputs of an ONNX file, as tensor specs. Reads no weights that lie beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.spec import TensorSpec

if TYPE_CHECKING:
    from onnx import GraphProto


def interface(graph: GraphProto) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Return a graph's inputs (without initialisers) and outputs.

    A dim is an int when it is static, else its symbol, which is empty when the graph gives it no name.
    """
    import onnx

    def described(tensor: onnx.ValueInfoProto) -> TensorSpec:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.type.tensor_type.elem_type).name
        dims = (d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.type.tensor_type.shape.dim)
        return TensorSpec(tensor.name, dtype, tuple(dims))

    weights = {tensor.name for tensor in graph.initializer}
    return [described(t) for t in graph.input if t.name not in weights], [described(t) for t in graph.output]


def input_dims(onnx_file: Path) -> dict[str, tuple[int | str, ...]]:
    """Return the dims of each input of an ONNX file: sizes, and the symbols of open ones."""
    import onnx

    inputs, _ = interface(onnx.load(str(onnx_file), load_external_data=False).graph)
    return {tensor.name: tensor.dims for tensor in inputs}

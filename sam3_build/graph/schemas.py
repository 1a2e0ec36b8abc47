"""Which tensors of an ONNX node a lower type may replace FP32 in, as the operator's schema says.

The only operators known by name are those whose type is an attribute, and those that compute nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

# Operators that multiply matrices: what a precision is for.
GEMMS = ("MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum")

# Operators whose output type an attribute decides (ConstantOfShape: the type of its `value`).
TYPE_ATTRIBUTES = {
    "BlackmanWindow": "output_datatype",
    "Bernoulli": "dtype",
    "Cast": "to",
    "ConstantOfShape": "value",
    "EyeLike": "dtype",
    "HammingWindow": "output_datatype",
    "HannWindow": "output_datatype",
    "RandomNormal": "dtype",
    "RandomNormalLike": "dtype",
    "RandomUniform": "dtype",
    "RandomUniformLike": "dtype",
}
# Operators that read no value, or that convert what they read: they take a tensor in the type it has.
INDIFFERENT = ("Cast", "Shape", "Size")
# Operators that write values that they read, in another place.
MOVERS = (
    *("Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape", "Slice", "Split"),
    *("Squeeze", "Tile", "Transpose", "Unsqueeze"),
)


@dataclass(frozen=True)
class Signature:
    """Which inputs and outputs of a low node carry the low type."""

    inputs: tuple[bool, ...]
    outputs: tuple[bool, ...]


def is_float(value: ir.Value | None) -> bool:
    """Return whether `value` is a tensor in FP32."""
    return value is not None and value.dtype is not None and value.dtype.name == "FLOAT"


def signature(node: ir.Node, low: ir.DataType, opset: int) -> Signature | None:
    """Return which tensors of `node` become low, or None when the operator's schema does not admit that."""
    import onnx
    import onnx_ir as ir

    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return None
    if any(
        v is not None and v.type is not None and not isinstance(v.type, ir.TensorType)
        for v in (*node.inputs, *node.outputs)
    ):
        return None
    variables = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}

    def formal(parameters: Sequence[onnx.defs.OpSchema.FormalParameter], index: int) -> str:
        return parameters[min(index, len(parameters) - 1)].type_str

    def admits(type_str: str) -> bool:
        return f"tensor({low.name.lower()})" in variables.get(type_str, [type_str])

    read = [(formal(schema.inputs, i), is_float(value)) for i, value in enumerate(node.inputs)]
    written = [(formal(schema.outputs, i), is_float(value)) for i, value in enumerate(node.outputs)]
    follows = {type_str for type_str, floating in read if floating and admits(type_str)}
    for type_str, floating in written:
        if floating and not (type_str in follows or (node.op_type in TYPE_ATTRIBUTES and admits(type_str))):
            return None
    return Signature(
        inputs=tuple(
            floating and type_str in follows and node.op_type not in INDIFFERENT for type_str, floating in read
        ),
        outputs=tuple(floating for _, floating in written),
    )

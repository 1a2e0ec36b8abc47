"""An onnx_ir model in; the same model with every node in FP32 or in one lower type; writes types, casts and constants.

A node is *low* or FP32; an edge between the two carries a cast, one per tensor. Which nodes may be low is read from the
operator schemas of the model's opset: the only operators known by name are those whose type is an attribute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from sam3_build import rounding
from sam3_build.errors import BuildError

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

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


@dataclass(frozen=True)
class TypedEdges:
    """What the pass did. Nodes without floating tensors are in none of the counts.

    clamped: finite constants beyond the type's range, set to its largest finite value
    flushed: constants that are not zero but are zero in the low type
    """

    low: int
    kept_by_pattern: int
    kept_by_schema: dict[str, int]
    kept_by_output: int
    casts: int
    clamped: int
    flushed: int


@dataclass(frozen=True)
class _Signature:
    """Which inputs and outputs of a low node carry the low type."""

    inputs: tuple[bool, ...]
    outputs: tuple[bool, ...]


def write_types(model: ir.Model, onnx_type: str, keep: Callable[[str], bool]) -> TypedEdges:
    """Put every node of `model` that may be into `onnx_type` (`FLOAT16`, `BFLOAT16`), in place.

    keep: node name -> True when the node must stay FP32. Floating inputs and outputs of the graph stay FP32 under their
    names. BuildError for subgraphs, local functions and tensors whose type cannot be inferred.
    """
    import onnx_ir as ir
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    low = ir.DataType[onnx_type]
    _refuse_nesting(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    infer_types(model)
    kept_by_pattern, kept_by_output, kept_by_schema = 0, 0, Counter[str]()
    signatures: dict[ir.Node, _Signature] = {}
    for node in model.graph:
        if not any(map(_is_float, (*node.inputs, *node.outputs))):
            continue
        if not any(map(_is_float, node.outputs)):
            kept_by_output += 1
        elif keep(node.name or ""):
            kept_by_pattern += 1
        elif signature := _signature(node, low, model.graph.opset_imports.get(node.domain, 0)):
            signatures[node] = signature
        else:
            kept_by_schema[node.op_type] += 1
    losses = [_retarget(node, low) for node in signatures]
    losses += _type_initializers(model.graph, signatures, low)
    casts = _cast_edges(model.graph, signatures, low)
    return TypedEdges(
        low=len(signatures),
        kept_by_pattern=kept_by_pattern,
        kept_by_schema=dict(sorted(kept_by_schema.items())),
        kept_by_output=kept_by_output,
        casts=casts,
        clamped=sum(clamped for clamped, _ in losses),
        flushed=sum(flushed for _, flushed in losses),
    )


def infer_types(model: ir.Model) -> None:
    """Give every tensor of `model` its element type; inputs and outputs keep their declared types and dims."""
    from onnx_ir.passes.common import ShapeInferencePass

    contract = [(value, value.type, value.shape) for value in (*model.graph.inputs, *model.graph.outputs)]
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(model)
    for value, declared, shape in contract:
        value.type, value.shape = declared, shape
    for node in model.graph:
        for value in node.outputs:
            if value.name and value.type is None:
                raise BuildError(
                    f"cannot tell the type of tensor {value.name!r}, an output of node {node.name!r} ({node.op_type}): "
                    "ONNX type inference does not know this operator or its inputs are not valid"
                )


def _refuse_nesting(model: ir.Model) -> None:
    if model.functions:
        raise BuildError(
            f"the model has local functions ({', '.join(f[1] for f in model.functions)}); inline them before"
        )
    for node in model.graph:
        if any(attribute.type.name in ("GRAPH", "GRAPHS") for attribute in node.attributes.values()):
            raise BuildError(
                f"node {node.name!r} ({node.op_type}) has a subgraph; no reduced precision can be written into it. "
                "Replace it in the family's forward code or with a patch, or build this component in fp32 only"
            )


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype is not None and value.dtype.name == "FLOAT"


def _signature(node: ir.Node, low: ir.DataType, opset: int) -> _Signature | None:
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

    read = [(formal(schema.inputs, i), _is_float(value)) for i, value in enumerate(node.inputs)]
    written = [(formal(schema.outputs, i), _is_float(value)) for i, value in enumerate(node.outputs)]
    follows = {type_str for type_str, floating in read if floating and admits(type_str)}
    for type_str, floating in written:
        if floating and not (type_str in follows or (node.op_type in TYPE_ATTRIBUTES and admits(type_str))):
            return None
    return _Signature(
        inputs=tuple(
            floating and type_str in follows and node.op_type not in INDIFFERENT for type_str, floating in read
        ),
        outputs=tuple(floating for _, floating in written),
    )


def _wants(node: ir.Node, index: int, signatures: dict[ir.Node, _Signature]) -> bool | None:
    """Return True when input `index` of `node` must be low, False when it must be FP32, None when either will do."""
    if node.op_type in INDIFFERENT:
        return None
    signature = signatures.get(node)
    return signature is not None and signature.inputs[index]


def _retarget(node: ir.Node, low: ir.DataType) -> tuple[int, int]:
    """Make a node whose output type is an attribute write the low type; return (clamped, flushed) of its constant."""
    import numpy as np
    import onnx_ir as ir

    name = TYPE_ATTRIBUTES.get(node.op_type)
    if name is None:
        return 0, 0
    if name != "value":
        node.attributes[name] = ir.AttrInt64(name, low.value)
        return 0, 0
    given = node.attributes.get(name)
    fill = given.as_tensor().numpy() if given is not None else np.zeros(1, np.float32)
    node.attributes[name] = ir.AttrTensor(name, ir.Tensor(rounding.lowered(fill, low.numpy()), dtype=low))
    return rounding.losses(fill, low.numpy())


def _type_initializers(
    graph: ir.Graph, signatures: dict[ir.Node, _Signature], low: ir.DataType
) -> list[tuple[int, int]]:
    """Give low users of a constant a low one: in its place when nobody else reads it, else a second one beside it."""
    import onnx_ir as ir

    losses = []
    for value in [v for v in graph.initializers.values() if _is_float(v) and not v.is_graph_input()]:
        users = [(node, index, _wants(node, index, signatures)) for node, index in value.uses()]
        if not any(wants for _, _, wants in users):
            continue
        source = value.const_value
        assert source is not None
        losses.append(rounding.losses(source.numpy(), low.numpy()))
        lowered = _lazy(source, low)
        if value.is_graph_output() or any(wants is False for _, _, wants in users):
            name = _free(f"{value.name}.{low.name.lower()}", graph.initializers)
            twin = ir.Value(name=name, type=ir.TensorType(low), shape=value.shape, const_value=lowered)
            graph.register_initializer(twin)
            for node, index, wants in users:
                if wants:
                    node.replace_input_with(index, twin)
        else:
            value.const_value, value.type = lowered, ir.TensorType(low)
    return losses


def _cast_edges(graph: ir.Graph, signatures: dict[ir.Node, _Signature], low: ir.DataType) -> int:
    """Put one cast on every tensor that is read in the other type than it is written in; return how many."""
    import onnx_ir as ir

    position = {node: index for index, node in enumerate(graph)}
    names = {node.name for node in graph}
    casts = 0
    for value in [v for v in (*graph.inputs, *(o for node in graph for o in node.outputs)) if _is_float(v)]:
        producer = value.producer()
        is_low = producer in signatures
        readers = [(n, i) for n, i in value.uses() if _wants(n, i, signatures) is (not is_low)]
        leaves = is_low and value.is_graph_output()
        if is_low:
            value.type = ir.TensorType(low)
        if not readers and not leaves:
            continue
        readers.sort(key=lambda reader: (position[reader[0]], reader[1]))
        neighbour = producer or readers[0][0]
        target = ir.DataType.FLOAT if is_low else low
        name = _cast_name(neighbour.name or "", names)
        cast = ir.node("Cast", [value], {"to": target.value}, name=name)
        cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(target), value.shape
        names.add(name)
        if producer:
            graph.insert_after(producer, cast)
        else:
            graph.insert_before(neighbour, cast)
        for node, index in readers:
            node.replace_input_with(index, cast.outputs[0])
        cast.outputs[0].name = f"{name}:0"
        if leaves:
            assert producer is not None
            cast.outputs[0].name, value.name = value.name, f"{producer.name}:{value.index()}"
            for index, output in enumerate(graph.outputs):
                if output is value:
                    graph.outputs[index] = cast.outputs[0]
        casts += 1
    return casts


def _cast_name(neighbour: str, taken: set[str | None]) -> str:
    """Return a free node name for a cast in the module path of `neighbour`."""
    scope = neighbour.rpartition("/")[0]
    return next(name for n in count() if (name := f"{scope}/Cast_{n}" if scope else f"Cast_{n}") not in taken)


def _free(name: str, taken: Container[str]) -> str:
    """Return `name`, or `name` with the first free number behind it."""
    return name if name not in taken else next(n for i in count(1) if (n := f"{name}_{i}") not in taken)


def _lazy(source: ir.TensorProtocol, low: ir.DataType) -> ir.TensorProtocol:
    """Return `source` in the low type, converted only when it is written: one tensor at a time lies in memory."""
    import onnx_ir as ir

    def convert() -> ir.TensorProtocol:
        return ir.Tensor(rounding.lowered(source.numpy(), low.numpy()), dtype=low)

    return ir.LazyTensor(convert, dtype=low, shape=ir.Shape(source.shape.numpy()), name=source.name)

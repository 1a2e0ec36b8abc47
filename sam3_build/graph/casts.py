"""Puts every node of an onnx_ir model into FP32 or one lower type: writes types, casts and constants, in place.

A node is *low* or FP32; an edge between the two carries a cast, one per tensor. Which nodes may be low is read from the
operator schemas of the model's opset: the only operators known by name are those whose type is an attribute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError
from sam3_build.graph import constants
from sam3_build.graph.files import infer_types
from sam3_build.graph.schemas import GEMMS, INDIFFERENT, MOVERS, TYPE_ATTRIBUTES, Signature, is_float, signature

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class CastCounts:
    """What `write_types` did. Nodes without floating tensors are in none of the counts.

    gemms, low_gemms: matrix multiplications, and how many of them are low
    kept: why nodes had to stay FP32 -> how many
    kept_by_output: nodes that turn floating tensors into others (comparisons, Shape, Cast to an integer)
    kept_by_reader: nodes that only move FP32 values to where FP32 is read
    clamped: finite constants beyond the type's range, set to its largest finite value
    flushed: constants that are not zero but are zero in the low type
    """

    low: int
    gemms: int
    low_gemms: int
    kept: dict[str, int]
    kept_by_schema: dict[str, int]
    kept_by_output: int
    kept_by_reader: int
    casts: int
    clamped: int
    flushed: int


def write_types(model: ir.Model, onnx_type: str, keep: Callable[[str], str | None]) -> CastCounts:
    """Put every node of `model` that may be into `onnx_type` (`FLOAT16`, `BFLOAT16`), in place.

    keep: node name -> why the node must stay FP32, or None. Floating inputs and outputs of the graph stay FP32 under
    their names. BuildError for subgraphs, local functions and tensors whose type cannot be inferred.
    """
    import onnx_ir as ir
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    low = ir.DataType[onnx_type]
    _refuse_nesting(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    infer_types(model)
    kept, kept_by_output, kept_by_schema = Counter[str](), 0, Counter[str]()
    signatures: dict[ir.Node, Signature] = {}
    for node in model.graph:
        if not any(map(is_float, (*node.inputs, *node.outputs))):
            continue
        if not any(map(is_float, node.outputs)):
            kept_by_output += 1
        elif why := keep(node.name or ""):
            kept[why] += 1
        elif found := signature(node, low, model.graph.opset_imports.get(node.domain, 0)):
            signatures[node] = found
        else:
            kept_by_schema[node.op_type] += 1
    gemms = [node for node in model.graph if node.op_type in GEMMS and any(map(is_float, node.outputs))]
    kept_by_reader = _keep_moved_values(model.graph, signatures)
    losses = [_retarget(node, low) for node in signatures]
    losses += _type_initializers(model.graph, signatures, low)
    casts = _cast_edges(model.graph, signatures, low)
    return CastCounts(
        low=len(signatures),
        gemms=len(gemms),
        low_gemms=sum(node in signatures for node in gemms),
        kept=dict(sorted(kept.items())),
        kept_by_schema=dict(sorted(kept_by_schema.items())),
        kept_by_output=kept_by_output,
        kept_by_reader=kept_by_reader,
        casts=casts,
        clamped=sum(clamped for clamped, _ in losses),
        flushed=sum(flushed for _, flushed in losses),
    )


def _refuse_nesting(model: ir.Model) -> None:
    if model.functions:
        raise BuildError(
            f"the model has local functions ({', '.join(f[1] for f in model.functions)}); inline them first"
        )
    for node in model.graph:
        if any(attribute.type.name in ("GRAPH", "GRAPHS") for attribute in node.attributes.values()):
            raise BuildError(
                f"node {node.name!r} ({node.op_type}) has a subgraph; no reduced precision can be written into it. "
                "Replace it in the family's `modules.py` or with a patch, or build this component in fp32 only"
            )


def _keep_moved_values(graph: ir.Graph, signatures: dict[ir.Node, Signature]) -> int:
    """Take out of `signatures` the nodes that move values from FP32 to FP32, where a low type could only round them."""
    exact: dict[ir.Node, None] = {}
    for node in graph:
        sources = [value.producer() for value in node.inputs if value is not None and is_float(value)]
        if node.op_type in MOVERS and all(s not in signatures or s in exact for s in sources if s is not None):
            exact[node] = None
    kept = 0
    for node in reversed(exact):
        readers = [(reader, index) for value in node.outputs for reader, index in value.uses()]
        leaves = any(is_float(value) and value.is_graph_output() for value in node.outputs)
        if node in signatures and (leaves or any(_wants(r, index, signatures) is False for r, index in readers)):
            del signatures[node]
            kept += 1
    return kept


def _wants(node: ir.Node, index: int, signatures: dict[ir.Node, Signature]) -> bool | None:
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
    node.attributes[name] = ir.AttrTensor(name, ir.Tensor(constants.cast(fill, low.numpy()), dtype=low))
    return constants.losses(fill, low.numpy())


def _type_initializers(
    graph: ir.Graph, signatures: dict[ir.Node, Signature], low: ir.DataType
) -> list[tuple[int, int]]:
    """Give low users of a constant a low one: in its place when nobody else reads it, else a second one beside it."""
    import onnx_ir as ir

    losses = []
    for value in [v for v in graph.initializers.values() if is_float(v) and not v.is_graph_input()]:
        users = [(node, index, _wants(node, index, signatures)) for node, index in value.uses()]
        if not any(wants for _, _, wants in users):
            continue
        source = value.const_value
        assert source is not None
        losses.append(constants.losses(source.numpy(), low.numpy()))
        converted = _lazy(source, low)
        if value.is_graph_output() or any(wants is False for _, _, wants in users):
            name = _free(f"{value.name}.{low.name.lower()}", graph.initializers)
            twin = ir.Value(name=name, type=ir.TensorType(low), shape=value.shape, const_value=converted)
            graph.register_initializer(twin)
            for node, index, wants in users:
                if wants:
                    node.replace_input_with(index, twin)
        else:
            value.const_value, value.type = converted, ir.TensorType(low)
    return losses


def _cast_edges(graph: ir.Graph, signatures: dict[ir.Node, Signature], low: ir.DataType) -> int:
    """Put one cast on every tensor that is read in the other type than it is written in; return how many."""
    import onnx_ir as ir

    position = {node: index for index, node in enumerate(graph)}
    names = {node.name for node in graph}
    casts = 0
    for value in [v for v in (*graph.inputs, *(o for node in graph for o in node.outputs)) if is_float(v)]:
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
        return ir.Tensor(constants.cast(source.numpy(), low.numpy()), dtype=low)

    return ir.LazyTensor(convert, dtype=low, shape=ir.Shape(source.shape.numpy()), name=source.name)

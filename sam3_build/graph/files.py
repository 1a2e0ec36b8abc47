"""Reads ONNX models, writes canonical ONNX files: their bytes depend only on what the graph computes and its names.

Engines are rebuilt when these bytes change, so a file carries no doc strings, metadata, producer or value_info.
Models are `onnx_ir.Model`; names.py gives the names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from sam3_build.errors import BuildError

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto
    from onnx_ir import Model, TensorProtocol, Value

# Above this, weights lie beside the model in `<name>.onnx.data`. Protobuf ends at 2 GiB, and already below that every
# tool that reads the file holds some copies of it, where data beside it is mapped.
INLINE_LIMIT = 2**30

# With data beside the file, tensors up to this size stay inside, where shape inference sees them.
SMALL_TENSOR = 1024

# Tensors in the data file start at a page, so that they can be mapped into memory.
ALIGNMENT = 4096


def onnx_file(path: Path) -> Path:
    """Return the one ONNX file of a folder, or `path` itself when it is a file."""
    if path.is_file():
        return path
    found = sorted(path.glob("*.onnx"))
    if len(found) != 1:
        raise BuildError(f"{path} should hold one ONNX file, but holds {[f.name for f in found]}")
    return found[0]


def load(path: Path) -> Model:
    """Read a model from a file, or from a folder that holds one. Data beside the file is mapped, not read."""
    import onnx_ir

    return onnx_ir.load(onnx_file(path))


def save(model: Model, path: Path) -> None:
    """Strip `model` of what computes nothing and write it to `path`, which must not exist yet.

    Weights are written one at a time, never copied as a whole; above INLINE_LIMIT they go to `<path>.data`. Types and
    shapes of inputs and outputs stay as they are, those of tensors in between are left out.
    """
    strip(model)
    weights = [
        (value, value.const_value) for value in model.graph.initializers.values() if value.const_value is not None
    ]
    beside = sum(tensor.nbytes for _, tensor in weights) > INLINE_LIMIT
    data = path.with_name(f"{path.name}.data")
    with _stubs(weights, data.name) as offsets:
        proto = _serialize(model)
    with path.open("xb") as file:
        _write(file, proto, [t for _, t in weights], [beside and t.nbytes > SMALL_TENSOR for _, t in weights])
    if beside:
        with data.open("xb") as file:
            for (_, tensor), offset in zip(weights, offsets, strict=True):
                if tensor.nbytes > SMALL_TENSOR:
                    file.write(b"\0" * (offset - file.tell()))
                    file.write(tensor.tobytes())


def infer_types(model: Model) -> None:
    """Give every tensor of `model` its element type; inputs and outputs keep their declared types and dims."""
    from onnx_ir.passes.common import ShapeInferencePass

    contract = [(value, value.type, value.shape) for value in (*model.graph.inputs, *model.graph.outputs)]
    initializers = list(model.graph.initializers.values())
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(model)
    for value, declared, shape in contract:
        value.type, value.shape = declared, shape
    model.graph.initializers.clear()  # the pass put the large ones at the end
    for value in initializers:
        model.graph.initializers.add(value)
    for node in model.graph:
        for value in node.outputs:
            if value.name and value.type is None:
                raise BuildError(
                    f"the type of tensor {value.name!r}, an output of node {node.name!r} ({node.op_type}), is not "
                    "known: ONNX type inference does not know this operator or its inputs are not valid"
                )


def weight_bytes(model: Model) -> int:
    """Return how many bytes the weights of `model` take."""
    return sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)


def check(path: Path, action: str) -> None:
    """Hold a written file against ONNX's full checker. BuildError that starts with `action` when it is not valid."""
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BuildError(f"{action}: the graph is not valid ONNX: {error}") from error


def strip(model: Model) -> None:
    """Remove everything from `model` that computes nothing and says nothing about its inputs and outputs."""
    graph = model.graph
    if model.functions:
        raise BuildError(f"graph {graph.name!r} calls functions of its own: {sorted(str(f) for f in model.functions)}")
    model.ir_version = lowest_ir_version(model)
    model.producer_name = model.producer_version = model.domain = model.doc_string = None
    model.model_version = None
    model.metadata_props.clear()
    graph.metadata_props.clear()
    graph.doc_string = None
    interface = {*graph.inputs, *graph.outputs}
    for value in interface:
        value.metadata_props.clear()
        value.doc_string = None
    for node in graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            _forget(value, interface)
    for value in graph.initializers.values():
        _forget(value, interface)


def lowest_ir_version(model: Model) -> int:
    """Return the oldest IR version that has what `model` uses: a runtime refuses files of a newer one than it knows.

    Operator sets alone decide: none takes an element type that its IR version lacks, and what else newer versions
    brought (functions, overloads, metadata) is in no canonical file.
    """
    from onnx import helper

    opsets = [helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    return int(helper.find_min_ir_version_for(opsets, ignore_unknown=True))


def _forget(value: Value, interface: set[Value]) -> None:
    if value not in interface:
        value.metadata_props.clear()
        value.type = None
        value.shape = None


@contextmanager
def _stubs(weights: Sequence[tuple[Value, TensorProtocol]], location: str) -> Iterator[list[int]]:
    """Put a description in place of every weight while the model is serialized; yield their places in a data file."""
    import onnx_ir

    offsets: list[int] = []
    end = 0
    for value, tensor in weights:
        offset = end + -end % ALIGNMENT if tensor.nbytes > SMALL_TENSOR else end
        end = offset + tensor.nbytes if tensor.nbytes > SMALL_TENSOR else end
        offsets.append(offset)
        value.const_value = onnx_ir.ExternalTensor(
            location,
            offset,
            tensor.nbytes,
            tensor.dtype,
            shape=onnx_ir.Shape(tensor.shape.numpy()),
            name=value.name or "",
        )
    try:
        yield offsets
    finally:
        for value, tensor in weights:
            value.const_value = tensor


def _serialize(model: Model) -> ModelProto:
    import onnx_ir

    return onnx_ir.serde.serialize_model(model)


def _write(file: IO[bytes], proto: ModelProto, tensors: Sequence[TensorProtocol], beside: Sequence[bool]) -> None:
    """Write the protobuf message by hand where weights are, because protobuf would hold all of them twice."""
    stubs: list[TensorProto] = list(proto.graph.initializer)
    headers: list[bytes] = []
    for stub, tensor, external in zip(stubs, tensors, beside, strict=True):
        if external:
            headers.append(stub.SerializeToString(deterministic=True))
        else:
            stub.ClearField("external_data")
            stub.ClearField("data_location")
            headers.append(stub.SerializeToString(deterministic=True) + RAW_DATA + _varint(tensor.nbytes))
    sizes = [len(h) + (0 if external else t.nbytes) for h, t, external in zip(headers, tensors, beside, strict=True)]
    proto.graph.ClearField("initializer")
    graph = proto.graph.SerializeToString(deterministic=True)
    proto.ClearField("graph")
    file.write(proto.SerializeToString(deterministic=True))
    file.write(GRAPH + _varint(len(graph) + sum(len(INITIALIZER) + len(_varint(s)) + s for s in sizes)) + graph)
    for header, size, tensor, external in zip(headers, sizes, tensors, beside, strict=True):
        file.write(INITIALIZER + _varint(size) + header)
        if not external:
            file.write(tensor.tobytes())


# Protobuf keys of length-delimited fields: (field number << 3) | 2.
GRAPH = bytes([7 << 3 | 2])  # ModelProto.graph
INITIALIZER = bytes([5 << 3 | 2])  # GraphProto.initializer
RAW_DATA = bytes([9 << 3 | 2])  # TensorProto.raw_data


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])

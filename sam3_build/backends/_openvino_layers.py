"""Takes an OpenVINO blob and the ONNX that it was built from, returns by ONNX node the type that it computes in.

A fused layer lists the nodes that it was made of, without some: a matrix product followed by its bias appears as the
bias alone, and the first product of an attention not at all. Each is looked for from its node on, along what reads its
output alone, until a layer lists a node on that way. Such a layer must be one that multiplies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sam3_build.backends import _openvino
from sam3_build.plugins import RunRequest

if TYPE_CHECKING:
    import onnx

# The layers that multiply matrices. A Subgraph is code that OpenVINO writes for a part of the graph, attention mostly.
KINDS = frozenset(
    {"Convolution", "Deconvolution", "FullyConnected", "GroupConvolution", "MatMul", "ScaledDotProductAttention"}
)
SUBGRAPH = "Subgraph"

# What OpenVINO calls a type -> what ONNX calls it. UINT8 activations times INT8 weights are INT8 arithmetic.
TYPES = {"f32": "FLOAT", "bf16": "BFLOAT16", "f16": "FLOAT16", "i8": "INT8", "u8": "INT8"}

# What OpenVINO puts behind a node's name when it makes two of it: the product, and its bias or its scale.
_PARTS = re.compile(r"/(?:WithoutBiases|DequantizationMultiply)$")

# What OpenVINO puts behind a product's name where it turns its weights round. The layer that reads them is the product,
# which may have lost its own name: of one without a bias, scaled by its quantization, it keeps none.
_OPERAND = "/transpose_b"


class _Value(Protocol):
    def astype(self, kind: type) -> object: ...


class _Output(Protocol):
    def get_node(self) -> _Node: ...


class _Input(Protocol):
    def get_source_output(self) -> _Output: ...


class _Node(Protocol):
    def get_friendly_name(self) -> str: ...

    def get_rt_info(self) -> Mapping[str, _Value]: ...

    def inputs(self) -> list[_Input]: ...


class _Model(Protocol):
    def get_ops(self) -> list[_Node]: ...


@dataclass(frozen=True)
class Layer:
    """A layer that runs: what it does, the nodes that it lists, its type as OpenVINO says it, and those it reads."""

    kind: str
    nodes: tuple[str, ...]
    type: str
    reads: tuple[str, ...]

    @property
    def computes(self) -> str | None:
        """The ONNX type that it multiplies in; None for a layer that does not multiply, or does not say in what.

        Of a Subgraph OpenVINO gives the type of the first input, which can be a mask: its floating inputs say it, where
        they have one type.
        """
        if self.kind in KINDS:
            return TYPES.get(self.type)
        floats = {name for name in self.reads if name in ("f32", "bf16", "f16", "i8")}
        return TYPES[floats.pop()] if self.kind == SUBGRAPH and len(floats) == 1 else None


def layer_types(request: RunRequest) -> Mapping[str, str]:
    """Return the type of each matrix product that a layer of the blob can be found for, by its ONNX node."""
    import onnx

    compiled, _ = _openvino.load(request)
    graph = onnx.load(str(request.onnx / f"{request.stem}.onnx"), load_external_data=False).graph
    return types_of(graph, list(layers(compiled.get_runtime_model())))


def layers(model: object) -> Iterator[Layer]:
    """Yield the layers of a runtime model."""
    ops: _Model = model  # type: ignore[assignment]  # the library ships no types for it
    for node in ops.get_ops():
        info = {key: str(value.astype(str)) for key, value in node.get_rt_info().items()}
        sources = [source.get_source_output().get_node() for source in node.inputs()]
        listed = [name for name in info.get("originalLayersNames", "").split(",") if name]
        read = [source.get_friendly_name() for source in sources]
        listed += [name.removesuffix(_OPERAND) for name in read if name.endswith(_OPERAND)]
        yield Layer(
            kind=info.get("layerType", ""),
            nodes=tuple(_PARTS.sub("", name) for name in (*listed, node.get_friendly_name())),
            type=info.get("runtimePrecision", ""),
            reads=tuple(str(source.get_rt_info()["outputPrecisions"].astype(str)) for source in sources),
        )


def types_of(graph: onnx.GraphProto, found: list[Layer]) -> dict[str, str]:
    """Return ONNX node name -> element type of the matrix products of `graph` that `found` has."""
    listing: dict[str, list[Layer]] = {}
    for layer in found:
        for name in layer.nodes:
            listing.setdefault(name, []).append(layer)
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {tensor.name for tensor in graph.output}
    types: dict[str, str] = {}
    for node in graph.node:
        if node.op_type in _PRODUCTS and (kind := _type_of(node, listing, readers, outputs)):
            types[node.name] = kind
    return types


_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"})


def _type_of(
    product: onnx.NodeProto,
    listing: Mapping[str, list[Layer]],
    readers: Mapping[str, list[onnx.NodeProto]],
    outputs: set[str],
) -> str | None:
    """Return the type of the layer that lists the product, or a node behind it on a way without a fork.

    Behind another product only a Subgraph can hold both: any other layer there is the other one's.
    """
    node: onnx.NodeProto | None = product
    behind_another = False
    while node is not None:
        names = [name for name in (node.name, *(o for o in node.output if o in outputs)) if name in listing]
        if names:  # a layer that does not multiply stands behind one that does, of another name
            found = [layer for name in names for layer in listing[name]]
            kinds = {layer.computes for layer in found if not behind_another or layer.kind == SUBGRAPH} - {None}
            return kinds.pop() if len(kinds) == 1 else None
        following = readers.get(node.output[0], ())
        if len(following) != 1:
            return None
        (node,) = following
        behind_another |= node.op_type in _PRODUCTS
    return None

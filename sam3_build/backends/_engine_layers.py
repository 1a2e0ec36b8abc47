"""Takes what TensorRT's engine inspector reports, returns by ONNX node the type that its layer computes in.

A layer's `Metadata` names the ONNX nodes that it was made of, when the engine was built with detailed profiling.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from sam3_build.spec import Json

# How releases write a tensor's type in its `Format/Datatype`, the longer words first: "Row major linear FP16 format".
_WORDS = (("BFLOAT16", r"bf16|bfloat16"), ("FLOAT16", r"fp16|half"), ("INT8", r"int8"), ("FLOAT", r"fp32|float"))

_NODE = re.compile(r"\[ONNX Layer: (.+?)\](?=\x1e|$|\[)")


def layer_types(document: Mapping[str, Json]) -> dict[str, str]:
    """Return ONNX node name -> element type, of nodes whose layer reads floating or INT8 tensors of one type only.

    A layer that reads several types computes in one of them, and does not say in which: its nodes are left out.
    """
    types_by_node: dict[str, str] = {}
    for layer in _each(document.get("Layers")):
        types = {kind for tensor in _each(layer.get("Inputs")) if (kind := _type(tensor))}
        if len(types) == 1:
            (kind,) = types
            types_by_node |= dict.fromkeys(_NODE.findall(str(layer.get("Metadata", ""))), kind)
    return types_by_node


def _each(listed: Json) -> Iterator[Mapping[str, Json]]:
    """Yield the objects of a list; without detailed profiling, layers are mere names."""
    for entry in listed if isinstance(listed, Sequence) and not isinstance(listed, str) else ():
        if isinstance(entry, Mapping):
            yield entry


def _type(tensor: Mapping[str, Json]) -> str | None:
    text = str(tensor.get("Format/Datatype", "")).lower()
    return next((name for name, words in _WORDS if re.search(rf"\b(?:{words})\b", text)), None)

"""Removes casts that change no value: to the type a tensor has, or back from a type that holds all of its values."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from sam3_build.spec import Patch

if TYPE_CHECKING:
    import numpy as np
    import onnx_graphsurgeon as gs


def requires(graph: object) -> str | None:
    """Casts must be there, and the type of what they read known."""
    casts = _casts(cast("gs.Graph", graph))
    if not casts:
        return "the graph has no Cast nodes"
    untyped = [node.name for node in casts if node.inputs[0].dtype is None]
    return f"the type of what {untyped[0]} reads is unknown" if untyped else None


def apply(graph: object) -> int:
    """Let a dead cast, or its readers, read what lies above; return how often that happened."""
    surgeon = cast("gs.Graph", graph)
    rewrites = 0
    while found := _dead(surgeon):
        node, source = found
        if _type(source) == _type(node.outputs[0]):
            _bypass(surgeon, node, source)
        else:
            node.inputs[0] = source
        surgeon.cleanup()
        rewrites += 1
    return rewrites


def ensures(graph: object) -> str | None:
    """No cast is left that this patch would remove."""
    found = _dead(cast("gs.Graph", graph))
    return f"{found[0].name} still changes no value" if found else None


def holds(wide: np.dtype[np.generic], narrow: np.dtype[np.generic]) -> bool:
    """Return whether every value of `narrow` is a value of `wide`, bit for bit."""
    import ml_dtypes
    import numpy as np

    if narrow == wide or narrow.kind == "b":
        return True
    if wide.kind == "b":
        return False

    def is_integer(dtype: np.dtype[np.generic]) -> bool:
        return dtype.kind in "iu"

    if is_integer(wide):
        return is_integer(narrow) and bool(
            np.iinfo(wide).min <= np.iinfo(narrow).min and np.iinfo(narrow).max <= np.iinfo(wide).max  # type: ignore[type-var]
        )
    digits = ml_dtypes.finfo(wide)  # type: ignore[no-untyped-call]
    if is_integer(narrow):
        limit = np.iinfo(narrow).max  # type: ignore[type-var]
        return bool(limit <= 2 ** (digits.nmant + 1) and limit <= digits.max)
    inner = ml_dtypes.finfo(narrow)  # type: ignore[no-untyped-call]
    return bool(inner.nmant <= digits.nmant and inner.maxexp <= digits.maxexp and inner.minexp >= digits.minexp)


def _casts(graph: gs.Graph) -> list[gs.Node]:
    return [node for node in graph.nodes if node.op == "Cast"]


def _type(tensor: gs.Tensor) -> np.dtype[np.generic]:
    import numpy as np
    import onnx

    dtype = tensor.dtype
    return onnx.helper.tensor_dtype_to_np_dtype(dtype) if isinstance(dtype, int) else np.dtype(dtype)


def _dead(graph: gs.Graph) -> tuple[gs.Node, gs.Tensor] | None:
    """Return a cast and the tensor that it, or its readers, could read instead."""
    for node in _casts(graph):
        source = node.inputs[0]
        if _type(source) == _type(node.outputs[0]) and _can_bypass(graph, node, source):
            return node, source
        above = source.inputs[0] if source.inputs else None
        if above is not None and above.op == "Cast" and holds(_type(source), _type(above.inputs[0])):
            return node, above.inputs[0]
    return None


def _can_bypass(graph: gs.Graph, node: gs.Node, source: gs.Tensor) -> bool:
    """Return whether the output of `node` can be had without it: a graph's output needs a node of its own."""
    leaves = any(output is node.outputs[0] for output in graph.outputs)
    return not leaves or bool(source.inputs and not any(output is source for output in graph.outputs))


def _bypass(graph: gs.Graph, node: gs.Node, source: gs.Tensor) -> None:
    target = node.outputs[0]
    if any(
        output is target for output in graph.outputs
    ):  # the name of an output is a contract: it moves to the producer
        producer = source.inputs[0]
        node.outputs.clear()
        _replace(source, target)
        producer.outputs[[output is source for output in producer.outputs].index(True)] = target
    else:
        _replace(target, source)


def _replace(old: gs.Tensor, new: gs.Tensor) -> None:
    """Let every reader of `old` read `new`."""
    for reader in list(old.outputs):
        for index, tensor in enumerate(reader.inputs):
            if tensor is old:
                reader.inputs[index] = new


PATCH = Patch(
    name="drop_dead_casts",
    summary="remove casts that change no value",
    requires=requires,
    apply=apply,
    ensures=ensures,
)

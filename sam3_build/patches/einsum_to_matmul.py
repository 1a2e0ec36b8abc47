"""Writes an Einsum that is a product of matrices as MatMul: `bqc,bchw->bqhw`, masks from queries and pixels.

The axes behind the shared one are flattened before and restored after: two views more, but ONNX Runtime's MatMul takes
two thirds of its Einsum's time, gives the same bits, and takes types that Einsum's schema does not have (BFLOAT16).
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, cast

from sam3_build.plugins import Patch

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs


def requires(graph: object) -> str | None:
    """There must be such an Einsum."""
    products = _products(cast("gs.Graph", graph))
    return None if products else "no Einsum is a product of matrices, as bqc,bchw->bqhw is"


def apply(graph: object) -> int:
    """Rewrite them all; return how many there were."""
    surgeon = cast("gs.Graph", graph)
    products = _products(surgeon)
    for node in products:
        _rewrite(surgeon, node)
    return len(products)


def ensures(graph: object) -> str | None:
    """None is left."""
    left = _products(cast("gs.Graph", graph))
    return f"{left[0].name} is still an Einsum" if left else None


def _products(graph: gs.Graph) -> list[gs.Node]:
    return [node for node in graph.nodes if node.op == "Einsum" and _is_product(node)]


def _is_product(node: gs.Node) -> bool:
    """Return whether `node` multiplies matrices. Batches may be broadcast: MatMul does that as Einsum does."""
    terms, _, result = node.attrs["equation"].replace(" ", "").partition("->")
    left, _, right = terms.partition(",")
    if len(left) != 3 or len(right) < 3 or not (left + right + result).isalpha():
        return False
    batch, row, shared = left
    rest = right[2:]
    if len({*left, *rest}) != 3 + len(rest) or right[:2] != batch + shared or result != batch + row + rest:
        return False
    one, other = (list(tensor.shape or ()) for tensor in node.inputs)
    known = len(one) == len(left) and len(other) == len(right)
    return known and one[2] == other[1] and all(isinstance(dim, int) for dim in other[1:])


def _rewrite(graph: gs.Graph, node: gs.Node) -> None:
    import numpy as np
    import onnx_graphsurgeon as gs

    (rows, columns), result = node.inputs, node.outputs[0]
    batch, shared, *rest = columns.shape
    scope = node.name.rpartition("/")[0] or graph.name
    taken = {other.name for other in graph.nodes}

    def add(op: str, inputs: list[gs.Tensor], shape: list[int | str | None]) -> gs.Variable:
        name = next(free for number in count() if (free := f"{scope}/{op}_{number}") not in taken)
        taken.add(name)
        made = gs.Variable(f"{name}:0", result.dtype, shape)
        graph.nodes.insert(place(), gs.Node(op, name, inputs=inputs, outputs=[made]))
        return made

    def place() -> int:
        return [other is node for other in graph.nodes].index(True)

    def sizes(name: str, dims: list[int]) -> gs.Constant:  # 0 copies a dim
        return gs.Constant(f"{node.name}/{name}", np.array(dims, np.int64))

    length = int(np.prod(rest))
    flat = add("Reshape", [columns, sizes("flat", [0, 0, length])], [batch, shared, length])
    product = add("MatMul", [rows, flat], [None, rows.shape[1], length])
    whole = add("Reshape", [product, sizes("whole", [0, 0, *rest])], list(result.shape))
    whole.inputs[0].outputs = [result]
    node.outputs.clear()
    graph.cleanup()


PATCH = Patch(
    name="einsum_to_matmul",
    summary="write an Einsum that is a product of matrices as MatMul",
    requires=requires,
    apply=apply,
    ensures=ensures,
)

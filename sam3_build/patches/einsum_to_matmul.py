"""Writes an Einsum that is a product of matrices as MatMul.

`bqc,bchw->bqhw`, masks from queries and pixels: the axes behind the shared one are flattened before and restored after.
`bhwc,hkc->bhwk` and `bhwc,wkc->bhwk`, relative positions in SAM's image encoder: the table is turned, and queries too
where it belongs to their second axis.

MatMul takes less of ONNX Runtime's time than its Einsum, gives the same bits, and takes types that Einsum's schema does
not have (BFLOAT16).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import TYPE_CHECKING, cast

from sam3_build.plugins import Patch

if TYPE_CHECKING:
    import numpy as np
    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray


def requires(graph: object) -> str | None:
    """There must be such an Einsum."""
    products = _products(cast("gs.Graph", graph))
    return None if products else "no Einsum is a product of matrices, as bqc,bchw->bqhw or bhwc,hkc->bhwk is"


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
    return [
        node for node in graph.nodes if node.op == "Einsum" and (_is_product(node) or _table_axis(node) is not None)
    ]


def _terms(node: gs.Node) -> tuple[str, str, str]:
    """Return the letters of both inputs and of the output."""
    terms, _, result = node.attrs["equation"].replace(" ", "").partition("->")
    left, _, right = terms.partition(",")
    return left, right, result


def _is_product(node: gs.Node) -> bool:
    """Return whether `node` multiplies matrices. Batches may be broadcast: MatMul does that as Einsum does."""
    left, right, result = _terms(node)
    if len(left) != 3 or len(right) < 3 or not (left + right + result).isalpha():
        return False
    batch, row, shared = tuple(left)
    rest = right[2:]
    if len({*left, *rest}) != 3 + len(rest) or right[:2] != batch + shared or result != batch + row + rest:
        return False
    one, other = (list(tensor.shape or ()) for tensor in node.inputs)
    known = len(one) == len(left) and len(other) == len(right)
    return known and one[2] == other[1] and all(isinstance(dim, int) for dim in other[1:])


def _table_axis(node: gs.Node) -> int | None:
    """Return which axis of [batch, rows, columns, channels], 1 or 2, a table has a matrix for; None of any other."""
    left, right, result = _terms(node)
    if len(left) != 4 or len(right) != 3 or len({*left, right[1]}) != 5 or result != left[:3] + right[1]:
        return None
    one, other = (list(tensor.shape or ()) for tensor in node.inputs)
    if len(one) != 4 or len(other) != 3 or right[2] != left[3] or right[0] not in left[1:3]:
        return None
    axis = left.index(right[0])
    fit = (one[axis], one[3]) == (other[0], other[2]) and all(isinstance(dim, int) for dim in (*one[1:], *other))
    return axis if fit else None


def _rewrite(graph: gs.Graph, node: gs.Node) -> None:
    if (axis := _table_axis(node)) is None:
        _by_pixels(_Writer(graph, node))
    else:
        _by_table(_Writer(graph, node), turned=axis == 2)
    graph.cleanup()


class _Writer:
    """Writes nodes in the place of one, with names of its scope; the last one gives what that gave."""

    def __init__(self, graph: gs.Graph, node: gs.Node) -> None:
        self.graph, self.node = graph, node
        self.scope = node.name.rpartition("/")[0] or graph.name
        self.taken = {other.name for other in graph.nodes}

    def add(
        self, op: str, inputs: list[gs.Tensor], shape: list[int | str | None], attrs: Mapping[str, object] | None = None
    ) -> gs.Variable:
        import onnx_graphsurgeon as gs

        name = next(free for number in count() if (free := f"{self.scope}/{op}_{number}") not in self.taken)
        self.taken.add(name)
        made = gs.Variable(f"{name}:0", self.node.outputs[0].dtype, shape)
        place = [other is self.node for other in self.graph.nodes].index(True)
        self.graph.nodes.insert(place, gs.Node(op, name, inputs=inputs, outputs=[made], attrs=dict(attrs or {})))
        return made

    def constant(self, name: str, values: NDArray[np.generic]) -> gs.Constant:
        import onnx_graphsurgeon as gs

        return gs.Constant(f"{self.node.name}/{name}", values)

    def give(self, last: gs.Variable) -> None:
        result = self.node.outputs[0]
        last.inputs[0].outputs = [result]
        self.node.outputs.clear()


def _by_pixels(write: _Writer) -> None:
    import numpy as np

    (rows, columns), result = write.node.inputs, write.node.outputs[0]
    batch, shared, *rest = columns.shape
    length = int(np.prod(rest))
    flat = write.add("Reshape", [columns, _sizes(write, "flat", [0, 0, length])], [batch, shared, length])
    product = write.add("MatMul", [rows, flat], [None, rows.shape[1], length])
    write.give(write.add("Reshape", [product, _sizes(write, "whole", [0, 0, *rest])], list(result.shape)))


def _sizes(write: _Writer, name: str, dims: list[int]) -> gs.Constant:
    """Return the sizes of a Reshape; 0 copies a dim."""
    import numpy as np

    return write.constant(name, np.array(dims, np.int64))


def _by_table(write: _Writer, *, turned: bool) -> None:
    import numpy as np
    import onnx_graphsurgeon as gs

    queries, table = write.node.inputs
    batch, height, width, channels = queries.shape
    first, keys, _ = table.shape
    if isinstance(table, gs.Constant):
        matrices: gs.Tensor = write.constant("table", np.ascontiguousarray(table.values.transpose(0, 2, 1)))
    else:
        matrices = write.add("Transpose", [table], [first, channels, keys], {"perm": [0, 2, 1]})
    if not turned:
        write.give(write.add("MatMul", [queries, matrices], [batch, height, width, keys]))
        return
    swap = {"perm": [0, 2, 1, 3]}
    columns = write.add("Transpose", [queries], [batch, width, height, channels], swap)
    product = write.add("MatMul", [columns, matrices], [batch, width, height, keys])
    write.give(write.add("Transpose", [product], [batch, height, width, keys], swap))


PATCH = Patch(
    name="einsum_to_matmul",
    summary="write an Einsum that is a product of matrices as MatMul",
    requires=requires,
    apply=apply,
    ensures=ensures,
)

"""Replaces tables that are computed at run time, though they depend on the batch size alone, by constants.

A table (a sine position encoding, tiled positions) is computed once here, on ONNX Runtime, for three batch sizes. Only
when the three agree bit for bit along the batch does a constant of one row with one Expand to the batch take its place.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, cast

from sam3_build.plugins import Patch

if TYPE_CHECKING:
    import numpy as np
    import onnx_graphsurgeon as gs

    Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]

BATCH_SIZES = (1, 2, 3)
_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")


def requires(graph: object) -> str | None:
    """Inputs must share a dynamic first dimension, and a table must be computed from it."""
    surgeon = cast("gs.Graph", graph)
    if _batch(surgeon) is None:
        return "its inputs share no dynamic first dimension"
    return None if _tables(surgeon) else "no floating tensor is computed from constants and the batch size alone"


def apply(graph: object) -> int:
    """Fold what can be folded; return the number of tables."""
    surgeon = cast("gs.Graph", graph)
    tables = _tables(surgeon)
    runs = [_compute(surgeon, tables, batch) for batch in BATCH_SIZES]
    folded = 0
    for table, *values in zip(tables, *runs, strict=True):
        if _is_repeated(values):
            _fold(surgeon, table, values[0])
            folded += 1
    surgeon.cleanup()
    return folded


def ensures(graph: object) -> str | None:
    """No floating tensor is computed from the batch size alone any more."""
    left = _tables(cast("gs.Graph", graph))
    return f"{left[0].name} depends on the batch size alone and is not the same row for each picture" if left else None


def _batch(graph: gs.Graph) -> str | None:
    """Return the symbolic first dimension of all inputs."""
    names = {tensor.shape[0] if tensor.shape else None for tensor in graph.inputs}
    name = names.pop() if len(names) == 1 else None
    return name if isinstance(name, str) else None


def _tables(graph: gs.Graph) -> list[gs.Variable]:
    """Return the floating tensors that are computed from the batch size and that something else reads."""
    import numpy as np

    known = _known(graph)
    tables = []
    for node in graph.nodes:
        if not known.get(id(node)) or _is_folded(node):
            continue
        for tensor in node.outputs:
            leaves = any(output is tensor for output in graph.outputs)
            read = any(id(reader) not in known for reader in tensor.outputs)
            if (leaves or read) and tensor.dtype is not None and np.dtype(tensor.dtype).kind == "f":
                tables.append(tensor)
    return tables


def _known(graph: gs.Graph) -> dict[int, bool]:
    """Return the nodes, by id, that need constants and the batch size alone; True for those that need the latter."""
    import onnx_graphsurgeon as gs

    batch = _batch(graph)
    known: dict[int, bool] = {}
    for node in graph.nodes:
        if node.op == "Shape" and all(isinstance(dim, int) or dim == batch for dim in _read_dims(node)):
            known[id(node)] = True
        elif node.op not in _RANDOM and not any(isinstance(value, gs.Graph) for value in node.attrs.values()):
            sources = [t for t in node.inputs if not isinstance(t, gs.Constant) and not t.is_empty()]
            if all(t.inputs and id(t.inputs[0]) in known for t in sources):
                known[id(node)] = any(known[id(t.inputs[0])] for t in sources)
    return known


def _read_dims(node: gs.Node) -> list[int | str | None]:
    """Return the dims that a Shape node reads; one unknown dim when the shape of its input is unknown."""
    shape = node.inputs[0].shape
    return [None] if shape is None else list(shape)[node.attrs.get("start", 0) : node.attrs.get("end", len(shape))]


def _is_folded(node: gs.Node) -> bool:
    import onnx_graphsurgeon as gs

    return node.op == "Expand" and isinstance(node.inputs[0], gs.Constant)


def _compute(graph: gs.Graph, tables: list[gs.Variable], batch: int) -> list[Array]:
    """Return the values of `tables` at one batch size, as ONNX Runtime computes them node by node."""
    import numpy as np
    import onnx_graphsurgeon as gs
    import onnxruntime as ort

    known = _known(graph)
    nodes = [node for node in graph.nodes if id(node) in known]
    sized = {node.inputs[0].name: node.inputs[0] for node in nodes if node.op == "Shape"}
    part = gs.Graph(nodes=nodes, inputs=list(sized.values()), outputs=tables, opset=graph.opset)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = gs.export_onnx(part, ir_version=graph.ir_version).SerializeToString()
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    shapes = {name: [dim if isinstance(dim, int) else batch for dim in tensor.shape] for name, tensor in sized.items()}
    feeds = {name: np.zeros(shape, sized[name].dtype) for name, shape in shapes.items()}
    return cast("list[Array]", session.run([table.name for table in tables], feeds))


def _is_repeated(values: list[Array]) -> bool:
    """Return whether the table at every batch size is its first row, again and again, bit for bit."""
    import numpy as np

    row = values[0]
    return row.ndim > 0 and all(
        value.shape == (batch, *row.shape[1:]) and value.tobytes() == np.broadcast_to(row, value.shape).tobytes()
        for batch, value in zip(BATCH_SIZES, values, strict=True)
    )


def _fold(graph: gs.Graph, table: gs.Variable, row: Array) -> None:
    """Let one Expand of a constant write `table`, in the place and module of the node that computed it."""
    import numpy as np
    import onnx_graphsurgeon as gs

    old = table.inputs[0]
    scope = old.name.rpartition("/")[0] or graph.name
    batch = gs.Variable(f"{table.name}/batch", np.int64, (1,))
    shape = gs.Variable(f"{table.name}/shape", np.int64, (row.ndim,))
    constant = gs.Constant(f"{table.name}/row", row)
    ones = gs.Constant(f"{table.name}/ones", np.ones(row.ndim - 1, np.int64))
    position = [node is old for node in graph.nodes].index(True)
    old.outputs[[output is table for output in old.outputs].index(True)] = gs.Variable(
        f"{table.name}/computed", table.dtype, table.shape
    )
    for op, attrs, inputs, output in (
        ("Shape", {"start": 0, "end": 1}, [graph.inputs[0]], batch),
        ("Concat", {"axis": 0}, [batch, ones], shape),
        ("Expand", {}, [constant, shape], table),
    ):
        position += 1
        graph.nodes.insert(position, gs.Node(op, _free(graph, f"{scope}/{op}"), attrs, inputs, [output]))


def _free(graph: gs.Graph, name: str) -> str:
    taken = {node.name for node in graph.nodes}
    return next(free for number in count() if (free := f"{name}_{number}") not in taken)


PATCH = Patch(
    name="fold_position_tables",
    summary="turn position tables that depend on the batch size alone into constants",
    requires=requires,
    apply=apply,
    ensures=ensures,
)

"""Keeps tokens in windows between layers with windowed attention, instead of going back to the grid after each.

A layer of that kind takes its normalized tokens from the grid into windows (Reshape, Transpose, Reshape), attends, and
puts them back before the residual is added. Everything up to the next layer treats each token alone, so where that
layer has the same windows, the whole stream can stay in them: it enters once, before the first layer of a run, and
leaves once, after the residual of the last. Each token meets the same numbers in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, cast

from sam3_build.plugins import Patch

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_graphsurgeon as gs

UNARY = ("Gelu", "Relu", "Sigmoid", "Tanh", "Erf", "Identity")
BINARY = ("Add", "Sub", "Mul", "Div")


@dataclass(frozen=True)
class Move:
    """Reshape, Transpose, Reshape: tokens from the grid into windows, or back."""

    nodes: tuple[gs.Node, gs.Node, gs.Node]
    into: bool
    sizes: tuple[int, int, int, int]  # height and width of the grid and of a window

    @property
    def source(self) -> gs.Tensor:
        """Return the tensor that is moved."""
        return self.nodes[0].inputs[0]

    @property
    def result(self) -> gs.Tensor:
        """Return the tensor after the move."""
        return self.nodes[2].outputs[0]


@dataclass(frozen=True)
class Layer:
    """Attention in windows: stream -> norm -> enter -> ... -> leave, added to the stream by `residual`."""

    stream: gs.Tensor
    norm: gs.Node
    enter: Move
    leave: Move
    residual: gs.Node


def requires(graph: object) -> str | None:
    """Two layers with the same windows must follow one another."""
    surgeon = cast("gs.Graph", graph)
    if _runs(surgeon):
        return None
    if padded := _padded(surgeon):
        return padded
    return "no two layers with the same attention windows follow one another"


def apply(graph: object) -> int:
    """Keep each run of layers in windows; return how many times the stream no longer leaves and enters them."""
    surgeon = cast("gs.Graph", graph)
    runs = _runs(surgeon)
    for run in runs:
        _rewrite(surgeon, run)
    surgeon.cleanup()
    return sum(len(run) - 1 for run in runs)


def ensures(graph: object) -> str | None:
    """No stream leaves windows to enter the same ones again."""
    left = _runs(cast("gs.Graph", graph))
    return f"{left[0][0].leave.nodes[1].name} still leaves windows that the next layer enters" if left else None


def _runs(graph: gs.Graph) -> list[list[Layer]]:
    """Return layers that follow one another, two or more together."""
    outputs = {id(tensor) for tensor in graph.outputs}
    runs: list[list[Layer]] = []
    for layer in _layers(graph, outputs):
        last = runs[-1][-1] if runs else None
        if last is not None and last.enter.sizes == layer.enter.sizes and _between(last, layer, outputs) is not None:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return [run for run in runs if len(run) > 1]


def _padded(graph: gs.Graph) -> str | None:
    """Return that windows hold padding, which no layer may pass on to the next one; None where none do."""
    outputs = {id(tensor) for tensor in graph.outputs}
    for move in (move for node in graph.nodes if node.op == "Transpose" and (move := _move(node, outputs))):
        pad = move.source.inputs[0] if move.into and move.source.inputs else None
        grid = _sizes(pad.inputs[0])[:2] if pad is not None and pad.op == "Pad" else []
        if grid:
            height, width = move.sizes[2:]
            return (
                f"attention windows of {height} x {width} do not divide the grid of {grid[0]} x {grid[1]}, which every "
                "layer pads anew: leave keep_windows out at this size of pictures, or take one that gives whole windows"
            )
    return None


def _layers(graph: gs.Graph, outputs: set[int]) -> list[Layer]:
    moves = [move for node in graph.nodes if node.op == "Transpose" and (move := _move(node, outputs)) is not None]
    entered: dict[int, tuple[gs.Node, Move]] = {}
    for move in moves:
        norm = move.source.inputs[0] if move.source.inputs else None
        if move.into and norm is not None and norm.op == "LayerNormalization" and _is_alone(move.source, outputs):
            entered[id(norm.inputs[0])] = (norm, move)
    layers = []
    for move in moves:
        residual = move.result.outputs[0] if _is_alone(move.result, outputs) else None
        if move.into or residual is None or residual.op != "Add":
            continue
        stream = next((tensor for tensor in residual.inputs if tensor is not move.result), None)
        norm, enter = entered.get(id(stream), (None, None))
        if norm is not None and enter is not None and stream is not None and enter.sizes == move.sizes:
            layers.append(Layer(stream, norm, enter, move, residual))
    return layers


def _move(transpose: gs.Node, outputs: set[int]) -> Move | None:
    """Return the move that a Transpose of six axes is the middle of."""
    if list(transpose.attrs.get("perm", ())) != [0, 1, 3, 2, 4, 5]:
        return None
    split, split_result = transpose.inputs[0].inputs[0] if transpose.inputs[0].inputs else None, transpose.inputs[0]
    result = transpose.outputs[0]
    merge = result.outputs[0] if _is_alone(result, outputs) else None
    if split is None or merge is None or (split.op, merge.op) != ("Reshape", "Reshape"):
        return None
    if not _is_alone(split_result, outputs):
        return None
    before, parts, after = (_sizes(t) for t in (split.inputs[0], split_result, merge.outputs[0]))
    if len(before) != 3 or len(parts) != 5 or len(after) != 3:
        return None
    a, b, c, d, size = parts
    if (before, after) == ([a * b, c * d, size], [b, d, size]):
        return Move((split, transpose, merge), into=True, sizes=(a * b, c * d, b, d))
    if (before, after) == ([c, d, size], [a * c, b * d, size]):
        return Move((split, transpose, merge), into=False, sizes=(a * c, b * d, c, d))
    return None


def _sizes(tensor: gs.Tensor) -> list[int]:
    """Return the dims after the first, which is the batch; none when one of them is not known."""
    dims = list(tensor.shape or ())[1:]
    return dims if all(isinstance(dim, int) for dim in dims) else []


def _is_alone(tensor: gs.Tensor, outputs: set[int]) -> bool:
    return len(tensor.outputs) == 1 and id(tensor) not in outputs


def _between(layer: Layer, following: Layer, outputs: set[int]) -> list[gs.Node] | None:
    """Return the nodes from one layer's residual to the next one's stream; None when one looks beyond its token."""
    start = layer.residual.outputs[0]
    nodes: dict[int, gs.Node] = {}
    pending = [following.stream]
    while pending:
        tensor = pending.pop()
        if tensor is start or (tensor.inputs and id(tensor.inputs[0]) in nodes):
            continue
        node = tensor.inputs[0] if tensor.inputs else None
        given = None if node is None else _tokens(node)
        if node is None or given is None:
            return None
        nodes[id(node)] = node
        pending += given
    readers = {*nodes, id(following.norm), id(following.residual)}
    for tensor in (start, *(node.outputs[0] for node in nodes.values())):
        if id(tensor) in outputs or any(id(reader) not in readers for reader in tensor.outputs):
            return None
    return list(nodes.values())


def _tokens(node: gs.Node) -> list[gs.Tensor] | None:
    """Return the inputs of `node` that hold tokens, when it computes each token from the same token alone."""
    import onnx_graphsurgeon as gs

    first, *others = node.inputs
    tables = [isinstance(tensor, gs.Constant) for tensor in others]
    if node.op in UNARY:
        return [first]
    if node.op == "LayerNormalization" and node.attrs.get("axis", -1) in (-1, 3) and all(tables):
        return [first]
    if node.op == "MatMul" and tables == [True] and len(others[0].shape) == 2:
        return [first]
    if node.op in BINARY:
        tokens = [tensor for tensor in node.inputs if not isinstance(tensor, gs.Constant)]
        same = all(len(tensor.shape or ()) == 4 for tensor in tokens)
        vectors = all(_is_vector(t.shape) for t in node.inputs if isinstance(t, gs.Constant))
        return tokens if same and vectors and _agree(tokens) else None
    return None


def _agree(tokens: Sequence[gs.Tensor]) -> bool:
    """Return whether no tensor is broadcast along the tokens."""
    return len({tuple(_sizes(tensor)[:2]) for tensor in tokens}) == 1 and all(_sizes(tensor) for tensor in tokens)


def _is_vector(shape: Sequence[int | str]) -> bool:
    return all(dim == 1 for dim in list(shape)[:-1])


def _rewrite(graph: gs.Graph, run: Sequence[Layer]) -> None:
    first, last = run[0], run[-1]
    batch = first.enter.result.shape[0]
    window = first.enter.sizes[2:]
    between = [_between(a, b, set()) or [] for a, b in pairwise(run)]
    stay = [
        *(layer.norm for layer in run),
        *(layer.residual for layer in run),
        *(n for nodes in between for n in nodes),
    ]
    for layer in run:
        inside = layer.leave.source
        _reread(layer.enter.result, layer.norm.outputs[0])
        layer.residual.inputs = [inside if t is layer.leave.result else t for t in layer.residual.inputs]
    _enter(graph, first)
    _leave(graph, last)
    for node in stay:
        node.outputs[0].shape = [batch, *window, node.outputs[0].shape[-1]]


def _enter(graph: gs.Graph, layer: Layer) -> None:
    """Let the stream enter its windows before it is normalized."""
    split, _, merge = layer.enter.nodes
    merge.outputs[0] = entered = _like(merge.outputs[0], f"{merge.name}/entered")
    split.inputs[0] = layer.stream
    layer.norm.inputs[0] = entered
    layer.residual.inputs = [entered if tensor is layer.stream else tensor for tensor in layer.residual.inputs]
    _place(graph, layer.enter.nodes, before=layer.norm)


def _leave(graph: gs.Graph, layer: Layer) -> None:
    """Let the stream leave its windows after the residual was added."""
    split, _, merge = layer.leave.nodes
    outside = layer.residual.outputs[0]
    layer.residual.outputs[0] = inside = _like(outside, f"{layer.residual.name}/inside")
    split.inputs[0] = inside
    merge.outputs[0] = outside
    _place(graph, layer.leave.nodes, after=layer.residual)


def _like(tensor: gs.Tensor, name: str) -> gs.Variable:
    import onnx_graphsurgeon as gs

    return gs.Variable(name, tensor.dtype, tensor.shape)


def _reread(old: gs.Tensor, new: gs.Tensor) -> None:
    """Let every reader of `old` read `new`."""
    for reader in list(old.outputs):
        reader.inputs = [new if tensor is old else tensor for tensor in reader.inputs]


def _place(
    graph: gs.Graph, nodes: Sequence[gs.Node], before: gs.Node | None = None, after: gs.Node | None = None
) -> None:
    """Move `nodes` in the graph's order."""
    moved = {id(node) for node in nodes}
    rest = [node for node in graph.nodes if id(node) not in moved]
    anchor = before if before is not None else after
    place = [node is anchor for node in rest].index(True) + (after is not None)
    graph.nodes[:] = [*rest[:place], *nodes, *rest[place:]]


PATCH = Patch(
    name="keep_windows",
    summary="keep tokens in their attention windows from layer to layer",
    requires=requires,
    apply=apply,
    ensures=ensures,
)

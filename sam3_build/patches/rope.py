"""Rewrites rotary position embeddings of pairs to their shortest exact form that no runtime computes slower.

x * cos + rotate(x) * sin, where rotate takes each pair (a, b) of the last axis to (-b, a). What is exported takes the
pairs apart by slices, negates one half and puts them together again; here one Split and one Concat swap them, and the
sign is in the table: a * -sin is -a * sin, bit for bit. The arithmetic gets a module path of its own, `<module>.rope`.

A Gather that swaps is shorter still, but takes three times as long on ONNX Runtime's CPU; a MatMul by a permutation is
exact nowhere that TF32 is on; permuted projection weights change the order of the sums in q @ k and are no longer those
of the checkpoint. benchmarks/results/patches.txt has the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, NamedTuple, cast

from sam3_build.plugins import Patch

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_graphsurgeon as gs


class Member(NamedTuple):
    """One half of the pairs on its way from the tensor of pairs to a Concat."""

    pairs: gs.Tensor
    half: int
    negated: bool


@dataclass(frozen=True)
class Rotation:
    """A chain that was found. `arithmetic` are the nodes that stay."""

    pairs: gs.Tensor
    concat: gs.Node
    product: gs.Node
    sine: gs.Constant
    negates_first: bool
    arithmetic: tuple[gs.Node, ...]


def requires(graph: object) -> str | None:
    """There must be a rotation."""
    rotations = _rotations(cast("gs.Graph", graph))
    return None if rotations else "no tensor is rotated: no x * cos + rotate(x) * sin with constant tables"


def apply(graph: object) -> int:
    """Rewrite every rotation; return how many there were."""
    surgeon = cast("gs.Graph", graph)
    tables: dict[tuple[str, bool], gs.Constant] = {}
    rotations = _rotations(surgeon)
    for rotation in rotations:
        key = (rotation.sine.name, rotation.negates_first)
        if key not in tables:
            tables[key] = _signed(rotation.sine, negates_first=rotation.negates_first)
        _rewrite(surgeon, rotation, tables[key])
    surgeon.cleanup()
    return len(rotations)


def ensures(graph: object) -> str | None:
    """No rotation negates anything any more."""
    left = _rotations(cast("gs.Graph", graph))
    return f"{left[0].concat.name} still puts a negated half beside the other" if left else None


def _rotations(graph: gs.Graph) -> list[Rotation]:
    outputs = {id(tensor) for tensor in graph.outputs}
    candidates = (_rotation(node, outputs) for node in graph.nodes if node.op == "Concat")
    return [rotation for rotation in candidates if rotation is not None]


def _rotation(concat: gs.Node, outputs: set[int]) -> Rotation | None:
    """Return the rotation that `concat` is part of, when nothing else reads what lies between its ends."""
    import onnx_graphsurgeon as gs

    if len(concat.inputs) != 2:
        return None
    first, second = (_member(tensor, outputs) for tensor in concat.inputs)
    if first is None or second is None or first.pairs is not second.pairs:
        return None
    pairs = first.pairs
    if (first.half, second.half) != (1, 0) or first.negated == second.negated or not _is_last(concat, "axis", pairs):
        return None
    spread, back = _producer(pairs, "Reshape"), _reader(concat, "Reshape", outputs)
    product = back and _reader(back, "Mul", outputs)
    total = product and _reader(product, "Add", outputs)
    if spread is None or back is None or product is None or total is None:
        return None
    x = spread.inputs[0]
    sine = _other(product, back.outputs[0])
    scaled = _producer(_other(total, product.outputs[0]), "Mul")
    if scaled is None or not any(tensor is x for tensor in scaled.inputs) or not isinstance(sine, gs.Constant):
        return None
    if not isinstance(_other(scaled, x), gs.Constant) or not _are_pairs(x.shape, pairs.shape):
        return None
    if not _are_pairs(back.outputs[0].shape, pairs.shape) or list(sine.shape)[-1:] != list(x.shape)[-1:]:
        return None
    return Rotation(pairs, concat, product, sine, first.negated, (scaled, spread, concat, back, product, total))


def _member(tensor: gs.Tensor, outputs: set[int]) -> Member | None:
    """Return which half of which pairs `tensor` is: an element of the last axis, kept, or removed and put back."""
    negated = removed = False
    while tensor.inputs and len(tensor.outputs) == 1 and id(tensor) not in outputs:
        node = tensor.inputs[0]
        source = node.inputs[0]
        if node.op == "Neg":
            negated = not negated
        elif node.op == "Unsqueeze" and not removed and _axes(node) in ([-1], [len(tensor.shape or ()) - 1]):
            removed = True
        elif node.op == "Squeeze" and removed and _axes(node) in ([-1], [len(source.shape or ()) - 1]):
            removed = False
        elif node.op == "Gather" and removed and _is_last(node, "axis", source):
            index = _constant(node.inputs[1])
            return Member(source, index[0] % 2, negated) if index in ([0], [1], [-1], [-2]) else None
        elif node.op == "Slice" and not removed:
            half = _sliced(node)
            return None if half is None else Member(source, half, negated)
        else:
            return None
        tensor = source
    return None


def _sliced(node: gs.Node) -> int | None:
    """Return which of the two elements of the last axis a Slice takes."""
    start, end, axes, *step = (_constant(tensor) for tensor in node.inputs[1:])
    rank = len(node.inputs[0].shape or ())
    if axes not in ([-1], [rank - 1]) or step not in ([], [[1]]) or start is None or end is None:
        return None
    index = range(2)[start[0] : end[0]]
    return index[0] if len(index) == 1 else None


def _axes(node: gs.Node) -> list[int] | None:
    return _constant(node.inputs[1]) if len(node.inputs) > 1 else None


def _constant(tensor: gs.Tensor) -> list[int] | None:
    import onnx_graphsurgeon as gs

    return [int(value) for value in tensor.values.ravel()] if isinstance(tensor, gs.Constant) else None


def _is_last(node: gs.Node, attribute: str, tensor: gs.Tensor) -> bool:
    return node.attrs.get(attribute, 0) in (-1, len(tensor.shape or ()) - 1)


def _are_pairs(whole: Sequence[int | str] | None, pairs: Sequence[int | str] | None) -> bool:
    """Return whether `pairs` is `whole` with its last axis in pairs. One unknown dim follows from all the others."""
    if whole is None or pairs is None or len(pairs) != len(whole) + 1 or len(whole) < 2:
        return False
    known = [isinstance(dim, int) for dim in whole]
    return (
        (pairs[-1], whole[-1]) == (2, 2 * pairs[-2] if isinstance(pairs[-2], int) else None)
        and known.count(False) <= 1
        and all(
            one == other if is_int else not isinstance(other, int)
            for one, other, is_int in zip(whole[:-1], pairs, known, strict=False)
        )
    )


def _producer(tensor: gs.Tensor | None, op: str) -> gs.Node | None:
    node = tensor.inputs[0] if tensor is not None and tensor.inputs else None
    return node if node is not None and node.op == op else None


def _reader(node: gs.Node, op: str, outputs: set[int]) -> gs.Node | None:
    """Return what reads the output of `node`, when it is one node of this operator."""
    tensor = node.outputs[0]
    only = tensor.outputs[0] if len(tensor.outputs) == 1 and id(tensor) not in outputs else None
    return only if only is not None and only.op == op else None


def _other(node: gs.Node, tensor: gs.Tensor) -> gs.Tensor | None:
    """Return the second of the two factors or terms of `node`."""
    return next((given for given in node.inputs if given is not tensor), None)


def _signed(sine: gs.Constant, *, negates_first: bool) -> gs.Constant:
    import onnx_graphsurgeon as gs

    values = sine.values.copy()
    half = values[..., 0 if negates_first else 1 :: 2]
    half[...] = -half
    return gs.Constant(f"{sine.name}/signed", values)


def _rewrite(graph: gs.Graph, rotation: Rotation, sine: gs.Constant) -> None:
    """Swap the pairs with one Split and the Concat that is there, and multiply them by `sine`."""
    import onnx_graphsurgeon as gs

    concat, pairs = rotation.concat, rotation.pairs
    scope = f"{concat.name.rpartition('/')[0] or graph.name}.rope"
    split = gs.Node("Split", attrs={"axis": -1, "num_outputs": 2}, inputs=[pairs])
    taken = {node.name for node in graph.nodes}
    for node in (*rotation.arithmetic, split):
        node.name = next(free for number in count() if (free := f"{scope}/{node.op}_{number}") not in taken)
        taken.add(node.name)
    shape = None if pairs.shape is None else [*pairs.shape[:-1], 1]
    split.outputs = [gs.Variable(f"{split.name}:{index}", pairs.dtype, shape) for index in range(2)]
    graph.nodes.insert([node is concat for node in graph.nodes].index(True), split)
    concat.inputs = [split.outputs[1], split.outputs[0]]
    rotation.product.inputs = [sine if tensor is rotation.sine else tensor for tensor in rotation.product.inputs]


PATCH = Patch(
    name="rope",
    summary="swap the pairs of rotary position embeddings by one Split and one Concat, the sign in the table",
    requires=requires,
    apply=apply,
    ensures=ensures,
)

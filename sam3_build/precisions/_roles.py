"""Which nodes of an `onnx_ir.Model` play a role that recipes name: norm, softmax, RoPE, residual add, block."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError
from sam3_build.graph.schemas import GEMMS

if TYPE_CHECKING:
    import onnx_ir as ir

# What moves values and changes none: an operand is the same behind them.
_MOVES = ("Cast", "Concat", "Expand", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")

# A counted module: of a path the longest one, `stages.2.blocks.1` in `stages.2.blocks.1.attn/Softmax_0`.
COUNTED = re.compile(r"[\w.]*\.\d+(?=[./])")


def normalizations(model: ir.Model) -> Iterator[str]:
    """Yield the nodes that divide by a standard deviation of their input."""
    return (node.name or "" for node in model.graph if node.op_type.endswith("Normalization"))


def softmaxes(model: ir.Model) -> Iterator[str]:
    """Yield the nodes that exponentiate and normalize."""
    return (node.name or "" for node in model.graph if node.op_type in ("Softmax", "LogSoftmax"))


def rotary(model: ir.Model) -> Iterator[str]:
    """Yield the arithmetic of rotary embeddings: x * cos + rotated(x) * sin, with constant tables.

    The patch `rope` gives it a module path of its own; as exported, it is found by its form.
    """
    for node in model.graph:
        if ".rope/" in (node.name or ""):
            yield node.name or ""
        elif node.op_type == "Add":
            products = [value.producer() for value in node.inputs if value is not None]
            factors = [_scaled(product) for product in products]
            first, second = (*factors, None, None)[:2]
            if first is not None and second is not None and _origin(first) is _origin(second):
                yield from (each.name or "" for each in (*products, node) if each is not None)


def residual_adds(model: ir.Model) -> Iterator[str]:
    """Yield the nodes that add to a stream what GEMMs made of that stream: x + f(x).

    Masks and biases of attention are left out: they are added to scores, and only a softmax reads the sum.
    """
    above: dict[ir.Value, int] = {value: 1 << index for index, value in enumerate(model.graph.inputs)}
    behind: dict[ir.Value, int] = dict.fromkeys(model.graph.inputs, 0)  # of what is above, what passed a GEMM
    for index, node in enumerate(model.graph, start=len(above)):
        sources = [value for value in node.inputs if value in above]
        over = _union(above[value] for value in sources)
        passed = over if node.op_type in GEMMS else _union(behind[value] for value in sources)
        for value in node.outputs:
            above[value], behind[value] = over | 1 << index, passed
        if node.op_type == "Add" and len(sources) == 2 and not _feeds_softmax(node):
            bits = [above[_origin(value)] & ~_union(above[v] for v in _read(_origin(value))) for value in sources]
            if any(bit & behind[branch] for bit, branch in zip(bits, reversed(sources), strict=True)):
                yield node.name or ""


def blocks(model: ir.Model) -> dict[str, list[str]]:
    """Return the transformer blocks in the order in which they run: path -> their nodes.

    A block is a counted module with attention inside, whatever it is called: `layers.3`, `blocks.3`.
    """
    names = [node.name or "" for node in model.graph]
    attention = (node.name or "" for node in model.graph if node.op_type == "Softmax")
    paths = {match[0] for match in map(COUNTED.match, attention) if match}
    nodes_by_block: dict[str, list[str]] = {}
    for name in names:
        match = COUNTED.match(name)
        path = match[0] if match else ""
        while path and path not in paths:
            inner = COUNTED.match(path.rpartition(".")[0])
            path = inner[0] if inner else ""
        if path:
            nodes_by_block.setdefault(path, []).append(name)
    return nodes_by_block


def first_blocks(model: ir.Model, count: int | None, share: float) -> set[str]:
    """Return the nodes of the first `count` blocks (None: that share of them, rounded down), and all that feed them.

    BuildError when there are fewer, listing what there is.
    """
    by_path = blocks(model)
    if not by_path:
        paths = sorted({(node.name or "").rpartition("/")[0].rpartition(".")[0] or "/" for node in model.graph})
        raise BuildError(
            "the graph has no blocks (counted modules such as `<path>.layers.<i>` with attention inside), so there is "
            f"no prefix to keep; its modules are {', '.join(paths[:12])}"
        )
    if count is not None and count > len(by_path):
        raise BuildError(
            f"blocks is {count}, but the graph has {len(by_path)}, in the order in which they run: {', '.join(by_path)}"
        )
    number = int(share * len(by_path)) if count is None else count
    wanted = {name for path in list(by_path)[:number] for name in by_path[path]}
    pending = [node for node in model.graph if node.name in wanted]
    while pending:
        for value in pending.pop().inputs:
            source = value.producer() if value is not None else None
            if source is not None and source.name not in wanted:
                wanted.add(source.name or "")
                pending.append(source)
    return wanted


def _read(value: ir.Value) -> list[ir.Value]:
    """Return the tensors that the producer of `value` reads, without constants."""
    node = value.producer()
    return [v for v in node.inputs if v is not None and not v.is_initializer()] if node is not None else []


def _feeds_softmax(node: ir.Node) -> bool:
    readers = [use.node for value in node.outputs for use in value.uses()]
    return bool(readers) and all(reader.op_type == "Softmax" for reader in readers)


def _union(sets: Iterator[int]) -> int:
    union = 0
    for each in sets:
        union |= each
    return union


def _origin(value: ir.Value) -> ir.Value:
    """Return the value that `value` only moves."""
    while True:
        node = value.producer()
        source = node.inputs[0] if node is not None and node.op_type in _MOVES and node.inputs else None
        if source is None or source.is_initializer():
            return value
        value = source


def _scaled(node: ir.Node | None) -> ir.Value | None:
    """Return what a Mul multiplies by a constant table, behind negations and moves; None for anything else."""
    if node is None or node.op_type != "Mul" or len(node.inputs) != 2:
        return None
    tables = [v for v in node.inputs if v is not None and v.const_value is not None and len(v.const_value.shape) > 1]
    factors = [v for v in node.inputs if v is not None and v.const_value is None]
    return _unsigned(factors[0]) if len(tables) == 1 and len(factors) == 1 else None


def _unsigned(value: ir.Value) -> ir.Value:
    """Return the value before what rotates it: moves, and a negation of one half."""
    while True:
        value = _origin(value)
        node = value.producer()
        if node is None or node.op_type != "Neg" or node.inputs[0] is None:
            return value
        value = node.inputs[0]

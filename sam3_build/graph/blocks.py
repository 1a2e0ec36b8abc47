"""Divides a component's FP32 graph into blocks by module path, ordered by depth, with the tensors that leave each.

`detr_encoder.layers.3` is a block, wherever its nodes stand. So is each stretch of other nodes of one network between
such blocks; it is called by the longest path that they share, with a number when that name comes again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import TYPE_CHECKING

from sam3_build.graph import files
from sam3_build.graph.names import module_path

if TYPE_CHECKING:
    from onnx_ir import Model, Node

# A path up to its first number: layers, and the counted parts of heads and necks.
COUNTED = re.compile(r"([\w.]+?\.\d+)(\.|$)")


@dataclass(frozen=True)
class Block:
    """Nodes that belong together, as far as others see of them.

    leaves: floating tensor that other blocks or the graph's caller read -> the node that writes it
    after:  indices of the blocks before this one that it reads from
    """

    name: str
    leaves: Mapping[str, str]
    after: tuple[int, ...]


def blocks(model: Model) -> tuple[Block, ...]:
    """Return the blocks that a floating tensor leaves, ordered by where the last one does. Infers types in `model`."""
    files.infer_types(model)
    groups = _groups(model)
    block_of = {node: name for name, nodes in groups.items() for node in nodes}
    outputs = set(model.graph.outputs)
    leaves: dict[str, dict[str, str]] = {}
    for node in model.graph:
        name = block_of[node]
        for value in node.outputs:
            leaving = value in outputs or any(block_of[use.node] != name for use in value.uses())
            if leaving and value.dtype is not None and value.dtype.name == "FLOAT":
                leaves[name] = leaves.pop(name, {}) | {value.name or "": node.name or ""}  # moved to the end
    depth = {name: index for index, name in enumerate(leaves)}
    result = []
    for name, index in depth.items():
        reads = {block_of[p] for node in groups[name] for v in node.inputs if v is not None and (p := v.producer())}
        after = sorted(depth[other] for other in reads if depth.get(other, index) < index)
        result.append(Block(name, leaves[name], tuple(after)))
    return tuple(result)


def _groups(model: Model) -> dict[str, list[Node]]:
    """Return the nodes of each block by its name."""
    found: dict[str, list[Node]] = {}
    seen: Counter[str] = Counter()
    for (counted, _), stretch in groupby(model.graph, key=_group_key):
        nodes = list(stretch)
        name = counted or _shared(module_path(node.name) or "" for node in nodes) or str(model.graph.name)
        if not counted:
            seen[name] += 1
            name += f" ({seen[name]})" if seen[name] > 1 else ""
        found.setdefault(name, []).extend(nodes)
    return found


def _group_key(node: Node) -> tuple[str, str]:
    """Return what neighbours must share to be of one block: a counted part, or else the network."""
    path = module_path(node.name) or ""
    counted = COUNTED.match(path)
    return (counted[1], "") if counted else ("", path.partition(".")[0])


def _shared(paths: Iterable[str]) -> str:
    """Return the longest path that all `paths` begin with, whole parts only."""
    columns = zip(*(path.split(".") for path in paths), strict=False)
    return ".".join(column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns))

"""The fingerprint of a graph's structure, and the check of a lock against it. Weights do not count.

A lock names nodes, so it fits every graph with the same nodes, operators and edges: a fine-tuned checkpoint keeps it,
another export, patch or simplifier may not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sam3_build.digest import digest
from sam3_build.errors import BuildError
from sam3_build.params import LockedNodes
from sam3_build.spec import Json

if TYPE_CHECKING:
    import onnx_ir as ir


def fingerprint(model: ir.Model) -> str:
    """Return the sha256 (hex) of nodes, operators and edges of `model`, in the graph's order."""
    interface: Json = [[value.name for value in model.graph.inputs], [value.name for value in model.graph.outputs]]
    nodes: Json = [
        [
            node.name,
            f"{node.domain}.{node.op_type}",
            [value.name if value is not None else None for value in node.inputs],
            [value.name for value in node.outputs],
        ]
        for node in model.graph
    ]
    return digest([interface, nodes])


def locked_nodes(model: ir.Model, locked: LockedNodes | None, stem: str) -> frozenset[str]:
    """Return the names of nodes that a lock keeps in FP32, none without one (None).

    BuildError when `model` is another graph than the one that was searched.
    """
    if locked is None:
        return frozenset()
    component, _, precision = stem.partition(".")
    again = f"run `sam3-build search {component} --precision {precision}` again, or delete the entry from the lock file"
    names = {node.name for node in model.graph}
    if missing := sorted({*locked.nodes} - names):
        listed = f"{missing[0]!r}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
        raise BuildError(f"{stem}: the lock file keeps {listed} in FP32, but the graph has no such node; {again}")
    if fingerprint(model) != locked.graph:
        raise BuildError(
            f"{stem}: the lock file is of another graph: nodes, operators or edges have changed since it was searched, "
            f"so another set may be needed; {again}"
        )
    return frozenset(locked.nodes)

"""A planted fault: the weights that update a state are a fifth of what they should be."""

from __future__ import annotations

from sam3_build.plugins import Patch


def apply(graph) -> int:
    """Scale every weight of the graph."""
    import onnx_graphsurgeon as gs

    weights = [t for t in graph.tensors().values() if isinstance(t, gs.Constant) and t.values.ndim == 2]
    for weight in weights:
        weight.values = weight.values * 0.2
    return len(weights)


PATCH = Patch("dim_state", "plant a fault", lambda graph: None, apply, lambda graph: None)

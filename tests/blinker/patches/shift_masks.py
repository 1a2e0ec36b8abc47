"""A planted fault: masks lie a pixel further to the left than they should."""

from __future__ import annotations

from sam3_build.plugins import Patch


def apply(graph) -> int:
    """Turn the masks by a column."""
    import numpy as np
    import onnx_graphsurgeon as gs

    (masks,) = (tensor for tensor in graph.outputs if tensor.name == "masks")
    whole = gs.Variable("whole", masks.dtype, masks.shape)
    (node,) = masks.inputs
    node.outputs = [whole if output is masks else output for output in node.outputs]
    parts = []
    for name, start, end in (("rest", 1, 2**31), ("first", 0, 1)):
        bounds = [gs.Constant(f"{name}/{i}", np.array([n], np.int64)) for i, n in enumerate((start, end, 2))]
        parts.append(gs.Variable(f"{name}:0", masks.dtype))
        graph.nodes.append(gs.Node("Slice", f"shift/{name}", inputs=[whole, *bounds], outputs=[parts[-1]]))
    graph.nodes.append(gs.Node("Concat", "shift/join", {"axis": 2}, inputs=parts, outputs=[masks]))
    return 1


PATCH = Patch("shift_masks", "plant a fault", lambda graph: None, apply, lambda graph: None)

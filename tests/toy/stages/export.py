"""Toy: the graph is a list of lines."""

import json

from sam3_build.families.toy.modules import FORWARD

from sam3_build.plugins import Memory, Stage


def run(params, inputs, out):
    """Write the toy output."""
    component = params["component"]
    graph = {"forward": FORWARD[component], "opset": params["opset"], "weights": inputs["tensors"].read_text()}
    (out / f"{component}.onnx").write_text(json.dumps(graph))
    return {}


STAGE = Stage(
    name="export",
    summary="Toy: the graph is a list of lines.",
    tools=("torch", "onnx"),
    run=run,
    memory=Memory(base=1),
    imports=("colorsys", "no_such_module"),
)

"""Toy: note the patches."""

import json

from sam3_build.plugins import Memory, Stage


def run(params, inputs, out):
    """Write the toy output."""
    component = params["component"]
    text = (inputs["onnx"] / f"{component}.onnx").read_text()
    (out / f"{component}.onnx").write_text(text + json.dumps(params["patches"]))
    return {}


STAGE = Stage(
    name="patch", summary="Toy: note the patches.", tools=("onnx-graphsurgeon",), run=run, memory=Memory(base=1)
)

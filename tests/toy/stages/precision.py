"""Toy: note the precision."""

import json

from sam3_build.plugins import Memory, Stage


def run(params, inputs, out):
    """Write the toy output."""
    stem = f"{params['component']}.{params['precision']}"
    text = (inputs["onnx"] / f"{params['component']}.onnx").read_text()
    (out / f"{stem}.onnx").write_text(text + json.dumps([params["precision"], params.get("keep_fp32", [])]))
    return {}


STAGE = Stage(name="precision", summary="Toy: note the precision.", tools=("onnx",), run=run, memory=Memory(base=1))

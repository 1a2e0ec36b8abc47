"""Toy: note the precision."""

import json

from sam3_build.spec import Stage


def run(params, inputs, out):
    """Write the toy output."""
    stem = f"{params['component']}.{params['precision']}"
    text = (inputs["onnx"] / f"{params['component']}.onnx").read_text()
    (out / f"{stem}.onnx").write_text(text + json.dumps([params["precision"], params["keep_fp32"]]))
    return {}


STAGE = Stage("precision", "Toy: note the precision.", ("onnx",), run)

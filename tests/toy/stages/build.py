"""Toy: an engine is its graph and its profiles."""

import json
import os
import time

from sam3_build import registry
from sam3_build.plugins import Memory, Stage


def run(params, inputs, out):
    """Write the toy output."""
    stem = f"{params['component']}.{params['precision']}"
    text = (inputs["onnx"] / f"{stem}.onnx").read_text()
    extension = registry.backend(params["backend"]).extension
    time.sleep(float(os.environ.get("TOY_SLOW", "0")))
    (out / f"{stem}{extension}").write_text(json.dumps([text, params["options"], params["profiles"]]))
    return {"inputs": []}


STAGE = Stage(
    name="build",
    summary="Toy: an engine is its graph and its profiles.",
    tools=("polygraphy",),
    run=run,
    memory=Memory(base=1),
)

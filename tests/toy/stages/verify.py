"""Toy: everything agrees, unless the forward code says wrong."""

import json

from sam3_build.plugins import Memory, Stage


def run(params, inputs, out):
    """Write the toy output."""
    outputs = {"encoder": "y", "head": "z"}
    name = outputs[params["component"]]
    wrong = "wrong" in (inputs["onnx"] / f"{params['component']}.{params['precision']}.onnx").read_text()
    metrics = {
        "max_abs_over_std": 1.0 if wrong else 1e-6,
        "max_abs_over_range": 1e-6,
        "cosine": 0.99999,
        "std_ratio": 1.0,
        "nonfinite": 0,
        "incomparable": 0,
        "rows": 0,
    }
    found = {"dtype": "float32", "elements": 4, "metrics": metrics}
    types = {"metrics": {"gemms": 0, "low_gemms": 1, "low_share": 1.0}}
    (out / "statistics.json").write_text(json.dumps({"outputs": {name: found, "types": types}}))
    return {}


STAGE = Stage(
    name="verify",
    summary="Toy: everything agrees, unless the forward code says wrong.",
    tools=("onnxruntime",),
    run=run,
    memory=Memory(base=1),
)

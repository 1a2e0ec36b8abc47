"""Toy: drop the spaces."""

from sam3_build.spec import Stage


def run(params, inputs, out):
    """Write the toy output."""
    component = params["component"]
    (out / f"{component}.onnx").write_text((inputs["onnx"] / f"{component}.onnx").read_text().replace(" ", ""))
    return {}


STAGE = Stage("simplify", "Toy: drop the spaces.", ("onnxsim",), run)

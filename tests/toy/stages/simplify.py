"""Toy: drop the spaces."""

from sam3_build.plugins import Memory, Stage


def run(params, inputs, out):
    """Write the toy output."""
    component = params["component"]
    (out / f"{component}.onnx").write_text((inputs["onnx"] / f"{component}.onnx").read_text().replace(" ", ""))
    return {}


STAGE = Stage(name="simplify", summary="Toy: drop the spaces.", tools=("onnxsim",), run=run, memory=Memory(base=1))

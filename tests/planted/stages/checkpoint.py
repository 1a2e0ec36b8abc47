"""Planted: the checkpoint says which faults are planted where."""

from sam3_build.plugins import Memory, Stage


def run(params, inputs, out):
    """Write the toy output."""
    (out / "config.json").write_bytes(inputs["config"].read_bytes())
    (out / "encoder.json").write_bytes(inputs["weights"].read_bytes())
    return {}


STAGE = Stage(name="checkpoint", summary="Planted: what is planted.", tools=(), run=run, memory=Memory(base=1))

"""Planted: the encoder is a toy transformer with faults in it, as `planted.json` of the manifest's folder asks."""

import json

import onnx
from sam3_build.families.toy.planted_overflow import planted

from sam3_build.plugins import Memory, Stage


def run(params, inputs, out):
    """Write the toy output."""
    asked = json.loads(inputs["tensors"].read_text())
    is_plain = asked["encoder.is_plain"]
    model, _ = planted(asked["encoder.blocks"], asked["encoder.plants"], seed=asked["encoder.seed"], is_plain=is_plain)
    onnx.save(model, out / "encoder.onnx")
    return {}


STAGE = Stage(name="export", summary="Planted: export.", tools=("torch", "onnx"), run=run, memory=Memory(base=1))

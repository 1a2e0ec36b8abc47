"""Planted: what PyTorch would say is what ONNX Runtime says of the same network."""

import json

import numpy as np
import onnxruntime
from sam3_build.families.toy.planted_overflow import cases, planted

from sam3_build.plugins import Memory, Stage


def run(params, inputs, out):
    """Write the toy output."""
    asked = json.loads(inputs["tensors"].read_text())
    is_plain = asked["encoder.is_plain"]
    model, _ = planted(asked["encoder.blocks"], asked["encoder.plants"], seed=asked["encoder.seed"], is_plain=is_plain)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for case, x in cases().items():
        np.savez(out / f"{case}.npz", **{"inputs/x": x, "outputs/y": session.run(None, {"x": x})[0]})
    return {}


STAGE = Stage(
    name="reference", summary="Planted: what PyTorch would say.", tools=("torch",), run=run, memory=Memory(base=1)
)

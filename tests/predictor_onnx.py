"""Networks of a predictor as ONNX, exported and simplified without a build, and inputs to run them on."""

from __future__ import annotations

import json

import numpy as np
from miniature import run_onnx
from tracked_clip import SEED

from sam3_build.graph.emulation import write_emulation
from sam3_build.params import ExportParams, InterfaceParams, PrecisionParams
from sam3_build.stages import export, precision, simplify
from sam3_build.weights.inventory import inventory


def _family(own):
    return own.code.family.laid_out("predictor")


def write(own, names, root):
    """Write `<name>.onnx` of these components of a `tracked_clip.Predictor` into a folder."""
    (root / "config.json").write_text(json.dumps(own.config()))
    listed = inventory(own.code, SEED, own.config(), None, "predictor")
    for name in names:
        spec = _family(own).component(name)
        (root / f"{name}.json").write_text(json.dumps({"tensors": listed[name]}))
        params = ExportParams(
            family=own.family,
            component=name,
            network=spec.network(own.reference),
            source=SEED,
            spec=InterfaceParams(inputs=spec.inputs, outputs=spec.outputs),
            opset=20,
            dynamic_dims=_family(own).dynamic_dims,
        )
        (root / name).mkdir()
        export.run(params.document(), {"config": root / "config.json", "tensors": root / f"{name}.json"}, root / name)
        simplify.run({"component": name}, {"onnx": root / name}, root)


def drawn(own, name, **sizes):
    """Return inputs of a network: around 0 with deviation 1, points anywhere in the picture."""
    dims, rng = {**own.code.family.static_dims(own.config()), **sizes}, np.random.default_rng(0)
    arrays = {}
    for tensor in _family(own).component(name).inputs:
        shape = [dims[dim] if isinstance(dim, str) else dim for dim in tensor.dims]
        arrays[tensor.name] = rng.standard_normal(shape, np.float32)
        if tensor.dtype == "bool":
            arrays[tensor.name] = rng.random(shape) > 0.5
        elif tensor.dtype == "int64":
            arrays[tensor.name] = rng.integers(0, 4, shape)
        elif tensor.name == "input_points":
            arrays[tensor.name] = rng.uniform(0, dims["image_size"], shape).astype(np.float32)
        elif tensor.name == "mask_for_memory":
            cells = rng.standard_normal((sizes["objects"], dims["grid"], dims["grid"])) > 0
            arrays[tensor.name] = cells.repeat(16, 1).repeat(16, 2).astype(np.float32) * 20 - 10
    return arrays


def require_equal(own, name, sizes, run, folder):
    """Require that a file gives what PyTorch gives, for so many objects, points, memories and pointers."""
    inputs = drawn(own, name, **sizes)
    found, expected = run_onnx(folder / f"{name}.onnx", inputs), run[name](inputs)
    assert found.keys() == expected.keys()
    for output, values in expected.items():
        assert values.shape[0] == sizes["objects"] and found[output].shape == values.shape
        assert np.abs(found[output] - values).max() <= 5e-5 * np.abs(values).max(), output


def error_of_half_precision(own, run, folder):
    """Return how far FP16 memories, emulated, are from PyTorch's, by their range."""
    low = folder / "low"
    low.mkdir()
    params = PrecisionParams(component="memory_encoder", precision="fp16")
    precision.run(params.document(), {"onnx": folder / "memory_encoder.onnx"}, low)
    inputs = drawn(own, "memory_encoder", objects=2)
    emulated = write_emulation(low / "memory_encoder.fp16.onnx", low)
    found, expected = run_onnx(emulated, inputs)["memory_features"], run["memory_encoder"](inputs)["memory_features"]
    return np.abs(found - expected).max() / (expected.max() - expected.min())

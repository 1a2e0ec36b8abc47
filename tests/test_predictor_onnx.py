"""Networks of predictors as ONNX against PyTorch, for as many objects, points and pointers as a loop may have."""

from __future__ import annotations

import json

import numpy as np
import pytest
from miniature import run_onnx
from tracked_clip import SEED, Predictor

from sam3_build.graph.emulation import write_emulation
from sam3_build.params import ExportParams, InterfaceParams, PrecisionParams
from sam3_build.stages import export, precision, simplify
from sam3_build.weights.inventory import inventory

pytestmark = pytest.mark.ci

PREDICTORS = (Predictor("edgetam"), Predictor("sam3_video", "hf"))
NAMES = ("mask_prompt", "mask_decoder", "memory_attention", "memory_encoder")


@pytest.fixture(scope="module", params=PREDICTORS, ids=lambda own: own.family)
def own(request):
    return request.param


@pytest.fixture(scope="module")
def run(own):
    return own.networks()


@pytest.fixture(scope="module")
def folder(own, tmp_path_factory):
    """A folder with `<name>.onnx` of each network, exported and simplified without a build."""
    root, family = tmp_path_factory.mktemp("onnx"), own.code.family.laid_out("predictor")
    (root / "config.json").write_text(json.dumps(own.config()))
    listed = inventory(own.code, SEED, own.config(), None, "predictor")
    for name in NAMES:
        spec = family.component(name)
        (root / f"{name}.json").write_text(json.dumps({"tensors": listed[name]}))
        params = ExportParams(
            family=own.family,
            component=name,
            network=spec.network(own.reference),
            source=SEED,
            spec=InterfaceParams(inputs=spec.inputs, outputs=spec.outputs),
            opset=20,
            dynamic_dims=family.dynamic_dims,
        )
        (root / name).mkdir()
        export.run(params.document(), {"config": root / "config.json", "tensors": root / f"{name}.json"}, root / name)
        simplify.run({"component": name}, {"onnx": root / name}, root)
    return root


def drawn(own, name, **sizes):
    """Return inputs of a network: around 0 with deviation 1, points anywhere in the picture."""
    dims, rng = {**own.code.family.static_dims(own.config()), **sizes}, np.random.default_rng(0)
    arrays = {}
    for tensor in own.code.family.laid_out("predictor").component(name).inputs:
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


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("mask_decoder", {"objects": 1, "points": 1}),
        ("mask_decoder", {"objects": 2, "points": 2}),
        ("mask_decoder", {"objects": 2, "points": 0}),
        ("mask_decoder", {"objects": 3, "points": 3}),
        ("memory_attention", {"objects": 1, "memories": 1, "pointers": 1}),
        ("memory_attention", {"objects": 2, "memories": 2, "pointers": 2}),
        ("memory_attention", {"objects": 2, "memories": 7, "pointers": 0}),
        ("memory_encoder", {"objects": 1}),
        ("memory_encoder", {"objects": 2}),
        ("mask_prompt", {"objects": 2}),
    ],
)
def test_a_file_gives_what_pytorch_gives(own, name, sizes, run, folder):
    inputs = drawn(own, name, **sizes)
    found, expected = run_onnx(folder / f"{name}.onnx", inputs), run[name](inputs)
    assert found.keys() == expected.keys()
    for output, values in expected.items():
        assert values.shape[0] == sizes["objects"] and found[output].shape == values.shape
        assert np.abs(found[output] - values).max() <= 5e-5 * np.abs(values).max(), output


def test_memories_bear_half_precision(own, run, folder):
    """Masks come binarized and scaled, so that no threshold lies behind a rounding. The error is by their range."""
    (folder / "low").mkdir()
    params = PrecisionParams(component="memory_encoder", precision="fp16")
    precision.run(params.document(), {"onnx": folder / "memory_encoder.onnx"}, folder / "low")
    inputs = drawn(own, "memory_encoder", objects=2)
    emulated = write_emulation(folder / "low" / "memory_encoder.fp16.onnx", folder / "low")
    found, expected = run_onnx(emulated, inputs)["memory_features"], run["memory_encoder"](inputs)["memory_features"]
    assert 0 < np.abs(found - expected).max() / (expected.max() - expected.min()) <= 2e-3

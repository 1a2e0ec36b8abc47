"""What `verify` shows of low precisions on ONNX Runtime's CPU: overflow and rounding inside, by the emulation."""

from __future__ import annotations

import json
import tempfile

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from sam3_build.compare.judge import default_gates, holds
from sam3_build.graph.casts import write_types
from sam3_build.params import NetworkParams
from sam3_build.stages import _networks, verify
from tests.toy_graphs import info, n, results, toy

X = np.linspace(4, 8, 12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def inputs(tmp_path):
    """A graph that leaves FLOAT16's range inside and comes back; what it computes in FP32 is X."""
    nodes = [
        n("Mul", ["x", "up"], ["a"]),
        n("Transpose", ["a"], ["t"], perm=[1, 0]),
        n("Transpose", ["t"], ["b"], perm=[1, 0]),
        n("Mul", ["b", "down"], ["y"]),
    ]
    model = toy(nodes, [info("x")], [info("y")], {"up": np.float32(2**14), "down": np.float32(2**-14)})
    for folder in ("onnx", "reference", "out", "scratch"):
        (tmp_path / folder).mkdir()
    for precision, onnx_type in (("fp16", "FLOAT16"), ("bf16", "BFLOAT16")):
        typed = ir.from_proto(model)
        write_types(typed, onnx_type, lambda name: None)
        onnx.save(ir.to_proto(typed), tmp_path / "onnx" / f"toy.{precision}.onnx")
    onnx.save(model, tmp_path / "onnx" / "toy.fp32.onnx")
    np.savez(tmp_path / "reference" / "case.npz", **{"inputs/x": X, "outputs/y": X})
    return {"onnx": tmp_path / "onnx", "reference": tmp_path / "reference"}


def failed(inputs, precision):
    """Verify for real; return the gates that what was measured does not pass."""
    out = inputs["onnx"].parent / "out"
    params = {"component": "toy", "precision": precision, "keep_outputs": False, "rows": 0}
    verify.run(params, inputs, out)
    metrics = json.loads((out / "statistics.json").read_text())["outputs"]["y"]["metrics"]
    measured = {gate: metrics[gate.metric] for gate in default_gates(precision, "float32") if gate.metric in metrics}
    return {gate.metric for gate, value in measured.items() if value is None or not holds(gate, value)}


def test_an_overflow_inside_fails_where_running_the_file_itself_would_pass(inputs):
    shipped = onnx.load(inputs["onnx"] / "toy.fp16.onnx")
    np.testing.assert_allclose(np.frombuffer(results(shipped, x=X)[0], np.float32), X.ravel(), rtol=1e-3)
    assert "nonfinite" in failed(inputs, "fp16")


def test_a_wider_type_and_the_graph_in_fp32_pass(inputs):
    assert failed(inputs, "bf16") == set()
    assert failed(inputs, "fp32") == set()


def test_a_session_needs_no_file_any_more_once_it_is_open(inputs, monkeypatch):
    scratch = inputs["onnx"].parent / "scratch"
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    params = NetworkParams(component="toy", precision="bf16")
    assert _networks.is_emulated(params)
    assert not _networks.is_emulated(NetworkParams(component="toy", precision="bf16", backend="tensorrt_rtx"))
    with _networks.network_session(params, inputs) as session:
        assert list(scratch.iterdir()) == []
        np.testing.assert_allclose(session.run({"x": X})["y"], X, rtol=2**-7)

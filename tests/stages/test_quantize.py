"""The quantize stage on a toy: symmetric Q/DQ pairs around chosen products, canonical names, ranges that were seen."""

from __future__ import annotations

import tempfile

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from sam3_build import registry
from sam3_build.errors import BuildError
from sam3_build.graph import files, names
from sam3_build.graph.keep_fp32 import gemm_types
from sam3_build.params import PrecisionParams
from sam3_build.stages import quantize
from tests.toy_graphs import info, n, toy

RNG = np.random.default_rng(0)
WEIGHTS = {f"enc.layers.0.{name}.weight": RNG.standard_normal((4, 4)).astype(np.float32) for name in ("q", "out")}


@pytest.fixture
def inputs(tmp_path):
    nodes = [
        n("MatMul", ["x", "enc.layers.0.q.weight"], ["q"], "enc.layers.0.q/MatMul_0"),
        n("MatMul", ["q", "x"], ["scores"], "enc.layers.0/MatMul_0"),
        n("Softmax", ["scores"], ["p"], "enc.layers.0/Softmax_0"),
        n("MatMul", ["p", "enc.layers.0.out.weight"], ["y"], "enc.layers.0.out/MatMul_0"),
    ]
    model = toy(nodes, [info("x", dims=(4, 4))], [info("y", dims=(4, 4))], WEIGHTS)
    reference = tmp_path / "reference"
    reference.mkdir()
    onnx.save(model, tmp_path / "toy.onnx")
    for case, largest in (("a", 2.0), ("b", 8.0)):
        x = RNG.standard_normal((4, 4)).astype(np.float32)
        x[0, 0] = largest
        np.savez(reference / f"{case}.npz", allow_pickle=False, **{"inputs/x": x, "outputs/y": x})
    (tmp_path / "out").mkdir()
    return {"onnx": tmp_path / "toy.onnx", "reference": reference}


def run(inputs, **params):
    out = inputs["onnx"].parent / "out"
    facts = quantize.run({"component": "toy", "precision": "int8_matmul", **params}, inputs, out)
    return onnx.load(out / "toy.int8_matmul.onnx"), facts


def producers(model):
    return {output: node for node in model.graph.node for output in node.output}


def test_products_with_weights_are_int8_and_attention_is_not(inputs):
    model, facts = run(inputs)
    by_name, made_by = {node.name: node for node in model.graph.node}, producers(model)
    for name in ("enc.layers.0.q/MatMul_0", "enc.layers.0.out/MatMul_0"):
        assert [made_by[i].op_type for i in by_name[name].input] == ["DequantizeLinear", "DequantizeLinear"]
    assert made_by[by_name["enc.layers.0/MatMul_0"].input[0]].op_type == "MatMul"
    assert (facts["low"], facts["gemms"], facts["kept"]) == (2, 3, {"no weight matrix": 1})
    assert (facts["quantize_linear"], facts["dequantize_linear"], facts["cases"]) == (2, 4, 2)
    assert facts["weight_bytes"] < facts["weight_bytes_before"]
    assert (model.opset_import[0].version, model.ir_version) == (20, 9), "ONNX Runtime 1.17 reads it"


def test_what_is_not_quantized_reads_what_it_read_before(inputs):
    """The quantizer puts a tensor's pair before all of its readers, products or not."""
    model, _ = run(inputs)
    (attention,) = [node for node in model.graph.node if node.name == "enc.layers.0/MatMul_0"]
    assert attention.input[1] == "x"


def test_a_product_that_stays_fp32_keeps_the_weights_that_it_shares(inputs):
    source = onnx.load(inputs["onnx"])
    second = n("MatMul", ["y", "enc.layers.0.q.weight"], ["z"], "enc.layers.0.q/MatMul_1")
    source.graph.node.append(second)
    source.graph.output[0].name = "z"
    onnx.save(source, inputs["onnx"])
    model, facts = run(inputs, keep_fp32=["*/MatMul_1"])
    by_name = {node.name: node for node in model.graph.node}
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    np.testing.assert_array_equal(stored["enc.layers.0.q.weight"], WEIGHTS["enc.layers.0.q.weight"])
    assert by_name["enc.layers.0.q/MatMul_1"].input[1] == "enc.layers.0.q.weight"
    assert stored["enc.layers.0.q.weight.int8"].dtype == np.int8
    assert facts["kept"] == {"manifest": 1, "no weight matrix": 1}


def test_the_expected_types_are_those_that_are_written(inputs):
    types = gemm_types(
        files.load(inputs["onnx"]),
        registry.precision("int8_matmul"),
        PrecisionParams(component="toy", precision="int8_matmul", keep_fp32=("*.out/*",)),
    )
    assert types == {
        "enc.layers.0.q/MatMul_0": "INT8",
        "enc.layers.0/MatMul_0": "FLOAT",
        "enc.layers.0.out/MatMul_0": "FLOAT",
    }


def test_ranges_are_symmetric_and_the_largest_that_any_case_has_seen(inputs):
    model, _ = run(inputs)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    (quantizes_x,) = [node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "x"]
    assert stored[quantizes_x.input[1]] == pytest.approx(8 / 127, rel=0.01)
    assert stored[quantizes_x.input[2]] == 0
    weight, scale = (stored[f"enc.layers.0.q.weight.{part}"] for part in ("int8", "scale"))
    assert (weight.dtype, scale.shape) == (np.int8, (4,))
    np.testing.assert_allclose(weight * scale, WEIGHTS["enc.layers.0.q.weight"], atol=scale.max() / 2 + 1e-6)


def test_names_are_canonical_and_nothing_temporary_is_left(inputs, monkeypatch):
    scratch = inputs["onnx"].parent / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    model, _ = run(inputs)
    out = inputs["onnx"].parent / "out"
    assert [f.name for f in out.iterdir()] == ["toy.int8_matmul.onnx"]
    assert list(scratch.iterdir()) == []
    assert all(names.module_path(node.name) for node in model.graph.node)
    assert not [name for t in model.graph.initializer if (name := t.name).endswith(("_scale", "_zero_point"))]
    assert not model.metadata_props
    assert [o.domain for o in model.opset_import] == [""]


def test_it_runs_and_is_near(inputs):
    model, _ = run(inputs)
    x = np.load(inputs["reference"] / "a.npz")["inputs/x"]
    (found,), (exact,) = (
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})
        for m in (model, onnx.load(inputs["onnx"]))
    )
    assert 0 < np.abs(found - exact).max() < 0.1 * np.ptp(exact)


def test_kept_nodes_are_not_quantized(inputs):
    model, facts = run(inputs, keep_fp32=["*.out/*"])
    stored = {t.name: t.data_type for t in model.graph.initializer}
    assert stored["enc.layers.0.out.weight"] == TensorProto.FLOAT
    assert facts["kept"] == {"manifest": 1, "no weight matrix": 1}


def test_nothing_to_quantize_and_nothing_to_calibrate_on_are_errors(inputs):
    with pytest.raises(BuildError, match=r"toy\.int8_matmul: no MatMul is left to quantize.*'manifest': 3"):
        run(inputs, keep_fp32=["*MatMul*"])
    for case in inputs["reference"].iterdir():
        case.unlink()
    with pytest.raises(BuildError, match=r"no recorded case runs 'toy', so there is nothing to run it on"):
        run(inputs)


def test_weights_beside_the_file_are_quantized_too(inputs, monkeypatch):
    monkeypatch.setattr(files, "INLINE_LIMIT", 0)
    monkeypatch.setattr(files, "SMALL_TENSOR", 16)
    _, facts = run(inputs)
    assert facts["low"] == 2


def test_the_same_graph_and_cases_give_the_same_bytes(inputs):
    out = inputs["onnx"].parent / "out" / "toy.int8_matmul.onnx"
    run(inputs)
    first = out.read_bytes()
    out.unlink()
    run(inputs)
    assert out.read_bytes() == first

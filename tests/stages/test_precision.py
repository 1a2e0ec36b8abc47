"""The precision stage around the typed-edge pass: patterns, the fp32 check, facts and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sam3_build import registry
from sam3_build.errors import BuildError
from sam3_build.graph import files
from sam3_build.plugins import Precision
from sam3_build.stages import precision

ROOT = Path(__file__).parents[2]
GIB = 2**30


def toy(tmp_path, *, dtype=np.float32, cast_to=TensorProto.FLOAT):
    nodes = [
        ("MatMul", ["x", "encoder.layers.0.proj.weight"], ["a"], "encoder.layers.0.proj/MatMul_0", {}),
        (
            "LayerNormalization",
            ["a", "encoder.layer_norm.weight"],
            ["b"],
            "encoder.layer_norm/LayerNormalization_0",
            {},
        ),
        ("Cast", ["b"], ["c"], "encoder/Cast_0", {"to": cast_to}),
        ("Cast", ["c"], ["y"], "encoder/Cast_1", {"to": TensorProto.FLOAT}),
    ]
    body = helper.make_graph(
        [helper.make_node(op, i, o, name=name, **attributes) for op, i, o, name, attributes in nodes],
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("batch", 8))],
        [
            numpy_helper.from_array(np.full((8, 8), 1e5, np.float32), "encoder.layers.0.proj.weight"),
            numpy_helper.from_array(np.ones(8, np.float32), "encoder.layer_norm.weight"),
        ],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (tmp_path / "out").mkdir()
    onnx.save(model, tmp_path / "toy.onnx")
    return tmp_path / "toy.onnx", tmp_path / "out"


def run(source, out, recipe="fp16", **params):
    facts = precision.run({"component": "toy", "precision": recipe, **params}, {"onnx": source}, out)
    return onnx.load(out / f"toy.{recipe}.onnx"), facts


def test_the_facts_say_what_became_low_what_stayed_and_why(tmp_path):
    _, facts = run(*toy(tmp_path), keep_fp32=["*layer_norm*"])
    assert facts == {
        "low": 3,
        "gemms": 1,
        "low_gemms": 1,
        "kept": {"manifest": 1},
        "kept_by_schema": {},
        "kept_by_output": 0,
        "kept_by_reader": 0,
        "casts": 3,
        "clamped": 64,
        "flushed": 0,
        "nodes": 7,
        "weight_bytes_before": 288,
        "weight_bytes": 160,
    }


@pytest.mark.parametrize("recipe", ["fp32", "fp16", "bf16", "fp16_safe", "fp16_islands"])
def test_no_precision_needs_a_newer_ir_version_than_its_opset(tmp_path, recipe):
    model, _ = run(*toy(tmp_path), recipe)
    assert (model.opset_import[0].version, model.ir_version) == (20, 9), "ONNX Runtime 1.17 reads it"


def test_patterns_of_manifest_and_family_keep_nodes_fp32(tmp_path):
    model, facts = run(*toy(tmp_path), keep_fp32=["encoder.layer_norm/*"], fp32_nodes=["encoder/Cast_1"])
    assert facts["kept"] == {"family": 1, "manifest": 1}
    assert {t.name: t.data_type for t in model.graph.initializer} == {
        "encoder.layers.0.proj.weight": TensorProto.FLOAT16,
        "encoder.layer_norm.weight": TensorProto.FLOAT,
    }


def test_a_precision_that_lowers_nothing_is_refused_and_says_what_keeps_it(tmp_path):
    source, out = toy(tmp_path)
    with pytest.raises(BuildError, match=r"toy.fp16: no node is in the low type.* 4 manifest; for want of .* none"):
        run(source, out, keep_fp32=["*"])
    with pytest.raises(BuildError, match=r"none of the 1 matrix multiplications is in the low type"):
        run(source, out, keep_fp32=["*/MatMul_0"])
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        (
            "*layernorm*",
            "did you mean 'layer_norm', as in encoder.layer_norm/LayerNormalization_0",
        ),
        ("encodr.layers.*", "did you mean 'encoder', as in encoder.layers.0.proj/MatMul_0"),
        ("zzz", "node names look like encoder.layers.0.proj/MatMul_0, encoder.layer_norm/LayerNormalization_0"),
    ],
)
def test_a_manifest_pattern_that_matches_nothing_is_an_error_that_names_near_nodes(tmp_path, pattern, hint):
    source, out = toy(tmp_path)
    with pytest.raises(BuildError, match=r"toy.fp16: keep_fp32 pattern '.*' matches none of the 4 nodes; ") as caught:
        run(source, out, keep_fp32=[pattern])
    assert hint in str(caught.value)
    assert list(out.iterdir()) == []


def test_a_family_pattern_that_matches_nothing_is_an_error_too(tmp_path):
    """Else coordinates would be rounded without a word after transformers renames a module."""
    source, out = toy(tmp_path)
    with pytest.raises(BuildError, match=r"fp32_nodes pattern '\*.coordinates.\*' matches none of the 4 nodes"):
        run(source, out, fp32_nodes=["*.coordinates.*"])


def test_a_recipe_keeps_nodes_by_its_own_reasons_and_gets_its_options(tmp_path, monkeypatch):
    def keep(model, options):
        return {node.name: options["why"] for node in model.graph if node.op_type == "LayerNormalization"}

    monkeypatch.setattr(registry, "precision", lambda name: Precision("fp16", "as fp16", "FLOAT16", {}, keep))
    _, facts = run(*toy(tmp_path), options={"why": "a test"})
    assert facts["kept"] == {"a test": 1}


def test_what_a_recipe_refuses_names_the_component(tmp_path, monkeypatch):
    def keep(model, options):
        raise BuildError("nothing to keep")

    monkeypatch.setattr(registry, "precision", lambda name: Precision("fp16", "as fp16", "FLOAT16", {}, keep))
    with pytest.raises(BuildError, match=r"^toy\.fp16: nothing to keep$"):
        run(*toy(tmp_path))


def test_fp32_changes_nothing(tmp_path):
    source, out = toy(tmp_path)
    model, facts = run(source, out, "fp32")
    assert facts["fp32_tensors"] == 7
    assert model.graph == onnx.load(source).graph


@pytest.mark.parametrize("to", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_fp32_refuses_a_tensor_of_another_floating_type_by_name(tmp_path, to):
    name = TensorProto.DataType.Name(to)
    with pytest.raises(BuildError, match=rf"tensor 'c' \(written by node 'encoder/Cast_0'\) is {name}, but every"):
        run(*toy(tmp_path, cast_to=to), "fp32")


def test_weights_beside_the_file_are_read_and_written(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "INLINE_LIMIT", 0)
    monkeypatch.setattr(files, "SMALL_TENSOR", 64)
    source, out = toy(tmp_path)
    onnx.save(
        onnx.load(source),
        tmp_path / "beside.onnx",
        save_as_external_data=True,
        location="beside.onnx.data",
        size_threshold=0,
    )
    model, _ = run(tmp_path / "beside.onnx", out)
    assert sorted(f.name for f in out.iterdir()) == ["toy.fp16.onnx", "toy.fp16.onnx.data"]
    assert numpy_helper.to_array(model.graph.initializer[0]).max() == 65504


@pytest.mark.ci
@pytest.mark.parametrize("beside", [False, True])
def test_memory_stays_below_two_and_a_half_times_the_weights_and_a_gigabyte(tmp_path, beside):
    side, layers = 2048, 24  # 24 x 16 MiB = 384 MiB
    first = np.random.default_rng(0).random((side, side), np.float32)
    weights = [first + i for i in range(layers)]
    nodes = [
        helper.make_node("MatMul", [f"t{i}", f"w.{i}"], [f"t{i + 1}"], name=f"m.{i}/MatMul_0") for i in range(layers)
    ]
    body = helper.make_graph(
        nodes,
        "big",
        [helper.make_tensor_value_info("t0", TensorProto.FLOAT, ("batch", side))],
        [helper.make_tensor_value_info(f"t{layers}", TensorProto.FLOAT, ("batch", side))],
        [numpy_helper.from_array(w, f"w.{i}") for i, w in enumerate(weights)],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "big.onnx", save_as_external_data=beside, location="big.onnx.data")
    code = """
import json, re, sys
from pathlib import Path
from sam3_build.stages import precision
out = Path(sys.argv[2])
facts = precision.run({"component": "big", "precision": "fp16"}, {"onnx": Path(sys.argv[1])}, out)
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps([facts["weight_bytes_before"], peak]))
"""
    (tmp_path / "out").mkdir()
    argv = [sys.executable, "-c", code, tmp_path / "big.onnx", tmp_path / "out"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    weight_bytes, peak = json.loads(done.stdout.splitlines()[-1])
    assert weight_bytes == layers * side * side * 4
    sys.stdout.write(f"peak {peak / weight_bytes:.2f} times the weights, {peak / GIB:.2f} GiB\n")
    assert peak <= 2.5 * weight_bytes + GIB

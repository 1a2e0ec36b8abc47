from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sam3_build.commands.inspect import describe, render
from sam3_build.errors import BuildError


def save(path: Path, *, external: bool = False) -> Path:
    weights = [
        numpy_helper.from_array(np.ones((8, 64), np.float32), "layer.w"),
        numpy_helper.from_array(np.ones((64,), np.float16), "layer.b"),
        helper.make_tensor("layer.axes", TensorProto.INT64, [1], [1]),
    ]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "layer.w"], ["h"], name="layer/MatMul_0"),
            helper.make_node("Relu", ["h"], ["r"], name="layer/Relu_0"),
            helper.make_node("Relu", ["r"], ["y"], name="layer/Relu_1"),
        ],
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 64])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path, save_as_external_data=external, location=f"{path.name}.data", size_threshold=100)
    return path


def test_an_onnx_shows_its_interface_operators_and_weights(tmp_path: Path) -> None:
    path = save(tmp_path / "decoder.fp32.onnx")
    assert describe(path) == {
        "file": str(path),
        "kind": "onnx",
        "files": {"decoder.fp32.onnx": path.stat().st_size},
        "ir_version": 10,
        "opset": {"ai.onnx": 20},
        "inputs": [{"name": "x", "dtype": "float32", "dims": ("batch", 8)}],
        "outputs": [{"name": "y", "dtype": "float32", "dims": ("batch", 64)}],
        "nodes": 3,
        "operators": {"Relu": 2, "MatMul": 1},
        "initialisers": 3,
        "weights": {"float16": 128, "float32": 2048, "int64": 8},
    }


def test_weights_beside_the_file_are_counted_and_missing_ones_are_shown(tmp_path: Path) -> None:
    path = save(tmp_path / "decoder.fp32.onnx", external=True)
    data = tmp_path / "decoder.fp32.onnx.data"
    found = describe(path)
    assert found["files"] == {path.name: path.stat().st_size, data.name: data.stat().st_size}
    assert found["weights"] == {"float16": 128, "float32": 2048, "int64": 8}
    data.unlink()
    assert describe(path)["files"] == {path.name: path.stat().st_size, data.name: None}
    assert "decoder.fp32.onnx.data  missing" in render(describe(path))


def test_a_precisions_graph_tells_what_is_low_and_why_the_rest_is_not(tmp_path: Path) -> None:
    model = tmp_path / "decoder.fp16.onnx"
    body = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])],
    )
    onnx.save(helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), model)
    sidecar = tmp_path / f"{model.name}.json"
    facts = {"low": 7, "gemms": 3, "low_gemms": 2, "kept": {"softmax": 4}, "casts": 5, "clamped": 0, "nodes": 12}
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    sidecar.write_text(json.dumps({"facts": facts, "files": {model.name: {"sha256": digest}}}))
    told = describe(model)["precision"]
    assert told == {"low": 7, "gemms": 3, "low_gemms": 2, "kept": {"softmax": 4}, "casts": 5}
    assert "kept       softmax 4" in render(describe(model))
    sidecar.write_text(json.dumps({"facts": facts, "files": {model.name: {"sha256": "0" * 64}}}))
    found = describe(model)
    assert "precision" not in found and "not the file that decoder.fp16.onnx.json records" in str(found["problem"])
    sidecar.unlink()
    assert "precision" not in describe(model)


def record(engine: Path, content: bytes) -> dict[str, object]:
    return {
        "action": "build:decoder.fp16.ada",
        "key": "k" * 64,
        "object": "o" * 64,
        "document": {
            "params": {"profiles": [{"batch": [1, 1, 8]}]},
            "tools": {"tensorrt_rtx": "1.7.1.116"},
            "device": {"os": "linux-x86_64", "compute_capabilities": ["8.9"]},
        },
        "files": {engine.name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}},
        "facts": {
            "inputs": [{"name": "x", "dtype": "float32", "dims": ["batch", 8]}],
            "outputs": [{"name": "y", "dtype": "float32", "dims": ["batch", 64]}],
        },
        "provenance": {"seconds": 3.5},
    }


def test_an_engine_is_described_by_its_sidecar(tmp_path: Path) -> None:
    engine = tmp_path / "decoder.fp16.ada.engine"
    engine.write_bytes(b"vtrt")
    sidecar = tmp_path / f"{engine.name}.json"
    sidecar.write_text(json.dumps(record(engine, b"vtrt")))
    found = describe(engine)
    assert found["problem"] is None
    assert found["action"] == "build:decoder.fp16.ada"
    assert found["device"] == {"os": "linux-x86_64", "compute_capabilities": ["8.9"]}
    assert found["profiles"] == [{"batch": [1, 1, 8]}]
    text = render(json.loads(json.dumps(found)))
    assert "x  float32[batch, 8]" in text
    assert "tensorrt_rtx  1.7.1.116" in text
    assert "batch [1, 1, 8]" in text


def test_a_changed_engine_and_one_without_sidecar_are_told_apart(tmp_path: Path) -> None:
    engine = tmp_path / "decoder.fp16.ada.engine"
    engine.write_bytes(b"vtrT")
    assert str(describe(engine)["problem"]).startswith("no sidecar: decoder.fp16.ada.engine.json is missing")
    (tmp_path / f"{engine.name}.json").write_text(json.dumps(record(engine, b"vtrt")))
    assert str(describe(engine)["problem"]).startswith("not the file that the sidecar records")


@pytest.mark.parametrize("content", ["{", "[]", '{"action": "x"}'])
def test_a_sidecar_that_is_no_record_is_an_error(tmp_path: Path, content: str) -> None:
    engine = tmp_path / "decoder.fp16.ada.engine"
    engine.write_bytes(b"vtrt")
    (tmp_path / f"{engine.name}.json").write_text(content)
    with pytest.raises(BuildError, match="not the record of an engine"):
        describe(engine)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", b"", "cannot inspect a .txt file; known: .onnx, .engine"),
        ("notes", b"", "cannot inspect a file without suffix; known: .onnx, .engine"),
        ("gone.onnx", None, "no such file; `sam3-build plan` shows what is built"),
        ("junk.onnx", b"\xffjunk", "not an ONNX file"),
        ("empty.onnx", b"", "not an ONNX file"),
    ],
)
def test_what_cannot_be_inspected_says_why(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BuildError) as error:
        describe(tmp_path / name)
    assert message in str(error.value)
    assert name in str(error.value)

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from sam3_build import registry
from sam3_build.backends.onnxruntime import BACKEND as ONNXRUNTIME
from sam3_build.errors import BuildError
from sam3_build.plugins import Backend, BuildRequest
from sam3_build.spec import Json
from sam3_build.stages.build import STAGE, interface

Params = dict[str, Json]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"], name="layer/MatMul_0"),
            helper.make_node("Where", ["mask", "h", "h"], ["y"], name="layer/Where_0"),
        ],
        "toy",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "rows", 8]),
            helper.make_tensor_value_info("mask", TensorProto.BOOL, ["batch", "rows", 1]),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [8, 4]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "rows", 4])],
        [helper.make_tensor("w", TensorProto.FLOAT, [8, 4], [0.5] * 32)],
    )
    (tmp_path / "onnx").mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "onnx" / "decoder.fp32.onnx")
    (tmp_path / "out").mkdir()
    return tmp_path


def params(**changes: Json) -> Params:
    return {
        "component": "decoder",
        "precision": "fp32",
        "backend": "toy",
        "options": {"level": 3},
        "profiles": [
            {"batch": [1, 2, 8], "rows": [1, 4, 16]},
            {"batch": [1, 1, 1], "rows": [4, 4, 4], "unused": [1, 1, 1]},
        ],
        **changes,
    }


def fake(
    monkeypatch: pytest.MonkeyPatch, write: Callable[[BuildRequest, Path], Mapping[str, Json]], *, profiles: bool = True
) -> None:
    toy: Backend = dataclasses.replace(
        ONNXRUNTIME, name="toy", extension=".engine", uses_profiles=profiles, build=write
    )
    monkeypatch.setattr(registry, "backend", {"toy": toy, "onnxruntime": ONNXRUNTIME}.__getitem__)


def run(folder: Path, given: Params) -> Mapping[str, Json]:
    return STAGE.run(given, {"onnx": folder / "onnx"}, folder / "out")


def test_profiles_are_resolved_against_the_files_own_inputs(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    seen: list[BuildRequest] = []

    def write(request: BuildRequest, out: Path) -> Mapping[str, Json]:
        seen.append(request)
        (out / f"{request.stem}.engine").write_bytes(b"engine")
        return {"level": request.options["level"]}

    fake(monkeypatch, write)
    facts = run(folder, params())
    assert seen[0].profiles == (
        {"x": ((1, 1, 8), (2, 4, 8), (8, 16, 8)), "mask": ((1, 1, 1), (2, 4, 1), (8, 16, 1))},
        {"x": ((1, 4, 8), (1, 4, 8), (1, 4, 8)), "mask": ((1, 4, 1), (1, 4, 1), (1, 4, 1))},
    )
    assert seen[0].stem == "decoder.fp32"
    assert seen[0].onnx == folder / "onnx" / "decoder.fp32.onnx"
    assert (facts["level"], facts["bytes"]) == (3, 6)
    assert json.loads(json.dumps(facts))["inputs"] == [
        {"name": "x", "dtype": "float32", "dims": ["batch", "rows", 8]},
        {"name": "mask", "dtype": "bool", "dims": ["batch", "rows", 1]},
    ]


def test_a_dynamic_dim_without_a_range_names_input_dim_and_profile(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    fake(monkeypatch, lambda request, out: {})
    profiles: Json = [{"batch": [1, 1, 1], "rows": [1, 1, 1]}, {"batch": [1, 1, 1], "row": [1, 1, 1]}]
    with pytest.raises(BuildError) as error:
        run(folder, params(profiles=profiles))
    assert str(error.value) == (
        "decoder.fp32.onnx: input 'x' has dynamic dimension 'rows' (axis 1), for which shape profile 2 gives no range; "
        "did you mean 'row'?; add it to every shape profile that this target uses"
    )


def test_an_unnamed_dynamic_dim_is_an_error(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    path = folder / "onnx" / "decoder.fp32.onnx"
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[1].ClearField("dim_param")
    onnx.save(model, path)
    fake(monkeypatch, lambda request, out: {})
    with pytest.raises(BuildError, match=r"input 'x' has an unnamed dynamic dimension \(axis 1\)"):
        run(folder, params())


def test_a_backend_without_profiles_sees_none(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def write(request: BuildRequest, out: Path) -> Mapping[str, Json]:
        assert request.profiles == ()
        (out / f"{request.stem}.engine").write_bytes(b"e")
        return {}

    fake(monkeypatch, write, profiles=False)
    assert run(folder, params(profiles=[{}]))["bytes"] == 1


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "backend 'toy' had to write 'decoder.fp32.engine' and wrote []"),
        ({"decoder.fp32.engine": b""}, "backend 'toy' wrote an empty 'decoder.fp32.engine'"),
        ({"decoder.fp32.engine": b"e", "cache": b"c"}, "and wrote ['cache', 'decoder.fp32.engine']"),
    ],
)
def test_what_a_backend_writes_is_checked(
    monkeypatch: pytest.MonkeyPatch, folder: Path, files: dict[str, bytes], message: str
) -> None:
    def write(request: BuildRequest, out: Path) -> Mapping[str, Json]:
        for name, data in files.items():
            (out / name).write_bytes(data)
        return {}

    fake(monkeypatch, write)
    with pytest.raises(BuildError) as error:
        run(folder, params())
    assert message in str(error.value)


def test_a_missing_onnx_is_named(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    fake(monkeypatch, lambda request, out: {})
    with pytest.raises(
        BuildError, match=r"decoder\.fp16\.onnx is not in the input folder; did you mean 'decoder\.fp32"
    ):
        run(folder, params(precision="fp16"))


def test_onnx_runtime_is_built_through_the_stage(folder: Path) -> None:
    facts = run(folder, params(backend="onnxruntime", options={}))
    assert [f.name for f in (folder / "out").iterdir()] == ["decoder.fp32.json"]
    assert facts["providers"] == ["CPUExecutionProvider"]


def test_the_interface_leaves_out_initialisers_and_keeps_symbols(folder: Path) -> None:
    inputs, outputs = interface(onnx.load(folder / "onnx" / "decoder.fp32.onnx").graph)
    assert [(t.name, t.dtype, t.dims) for t in (*inputs, *outputs)] == [
        ("x", "float32", ("batch", "rows", 8)),
        ("mask", "bool", ("batch", "rows", 1)),
        ("y", "float32", ("batch", "rows", 4)),
    ]

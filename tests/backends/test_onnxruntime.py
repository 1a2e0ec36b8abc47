from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from gpus import L4, RTX_4090
from onnx import TensorProto, helper

from sam3_build import registry
from sam3_build.backends import onnxruntime
from sam3_build.backends.onnxruntime import BACKEND, require_provider
from sam3_build.errors import BuildError
from sam3_build.plugins import BuildRequest


def save(path: Path, operator: str) -> BuildRequest:
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"], name=f"layer/{operator}_0")],
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return BuildRequest(path, "toy.fp32.cpu", {}, ())


def test_build_proves_that_a_session_opens_and_writes_no_second_model(tmp_path: Path) -> None:
    request = save(tmp_path / "toy.fp32.onnx", "Relu")
    out = tmp_path / "out"
    out.mkdir()
    facts = BACKEND.build(request, out)
    assert [f.name for f in out.iterdir()] == ["toy.fp32.cpu.json"]
    written = json.loads((out / "toy.fp32.cpu.json").read_text())
    assert (
        written
        == facts
        == {
            "onnx": "toy.fp32.onnx",
            "providers": ["CPUExecutionProvider"],
            "inputs": [{"name": "x", "type": "tensor(float)", "shape": ["batch", 8]}],
            "outputs": [{"name": "y", "type": "tensor(float)", "shape": ["batch", 8]}],
        }
    )


def test_what_onnx_runtime_refuses_is_an_error_in_its_own_words(tmp_path: Path) -> None:
    request = save(tmp_path / "toy.fp32.onnx", "NoSuchOperator")
    with pytest.raises(BuildError, match=r"toy\.fp32\.onnx: ONNX Runtime cannot open it: .*NoSuchOperator"):
        BACKEND.build(request, tmp_path)
    (tmp_path / "toy.fp32.onnx").write_bytes(b"junk")
    with pytest.raises(BuildError, match="ONNX Runtime cannot open it"):
        BACKEND.build(request, tmp_path)


def test_bf16_is_impossible_and_other_precisions_are_not() -> None:
    assert "bf16" in str(BACKEND.impossible({}, registry.precision("bf16")))
    assert BACKEND.impossible({}, registry.precision("fp16")) is None


def test_no_device_and_no_profile_enters_the_key() -> None:
    assert BACKEND.device_fields({"provider": "cpu"}, None) == {}
    assert not BACKEND.uses_profiles
    assert BACKEND.needs_gpu({"provider": "cpu"}) == ()
    assert BACKEND.missing({"provider": "cpu"}, None) is None
    assert BACKEND.cannot_run({"provider": "cpu"}, None) is None


CUDA = {"provider": "cuda"}


class Fallen:
    """A session as ONNX Runtime returns it: it names the providers that it really uses."""

    def __init__(self, *providers: str) -> None:
        self._providers = list(providers)

    def get_providers(self) -> list[str]:
        return self._providers

    def get_inputs(self) -> list[onnxruntime._TensorInfo]:
        return []

    def get_outputs(self) -> list[onnxruntime._TensorInfo]:
        return []


def test_a_session_that_fell_back_to_the_cpu_is_an_error_and_never_a_pass() -> None:
    with pytest.raises(BuildError, match="was asked for CUDAExecutionProvider and fell back to CPUExecutionProvider"):
        require_provider("CUDAExecutionProvider", Fallen("CPUExecutionProvider"), "toy.onnx")
    session = Fallen("CUDAExecutionProvider", "CPUExecutionProvider")
    assert require_provider("CUDAExecutionProvider", session, "toy.onnx") is session


def test_cuda_needs_a_gpu_its_own_package_and_to_be_run_to_be_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    assert BACKEND.needs_gpu(CUDA) == ("build", "run")
    assert BACKEND.runs(CUDA) and not BACKEND.runs({"provider": "cpu"})
    assert BACKEND.impossible(CUDA, registry.precision("bf16")) is None
    monkeypatch.setattr(onnxruntime, "_is_installed", lambda name: name != "onnxruntime-gpu")
    assert BACKEND.missing(CUDA, L4) == (
        "the Python package onnxruntime-gpu is not installed (pip install onnxruntime-gpu)"
    )
    assert BACKEND.missing({"provider": "cpu"}, None) is None
    monkeypatch.setattr(onnxruntime, "_is_installed", lambda name: True)
    assert BACKEND.missing(CUDA, L4) is None


def test_a_cuda_session_is_bound_to_the_kind_of_gpu() -> None:
    assert BACKEND.device_fields(CUDA, L4) == {"os": "linux-x86_64", "name": "NVIDIA L4", "compute_capability": "8.9"}
    assert BACKEND.device_fields(CUDA, L4) != BACKEND.device_fields(CUDA, RTX_4090)


def test_fp32_is_fp32_with_cuda_too() -> None:
    assert onnxruntime.PROVIDERS["cuda"] == ("CUDAExecutionProvider", {"use_tf32": "0"})

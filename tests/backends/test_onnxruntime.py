from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from gpus import L4, RTX_4090
from onnx import TensorProto, helper

from sam3_build import registry
from sam3_build.backends import _onnxruntime, onnxruntime
from sam3_build.backends._onnxruntime import require_provider
from sam3_build.backends.onnxruntime import BACKEND
from sam3_build.errors import BuildError
from sam3_build.plugins import BuildRequest, RunRequest
from sam3_build.spec import TensorSpec


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

    def get_inputs(self) -> list[_onnxruntime.TensorInfo]:
        return []

    def get_outputs(self) -> list[_onnxruntime.TensorInfo]:
        return []

    def run(self, output_names: None, input_feed: object) -> list[np.ndarray]:
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
    assert _onnxruntime.PROVIDERS["cuda"] == ("CUDAExecutionProvider", {"use_tf32": "0"})


# ------------------------------------------------------------------ sessions


def network(folder: Path) -> RunRequest:
    """Write a graph whose sums are long enough for their order to show: y = softmax(x @ w), ids + 1, and flags."""
    rng = np.random.default_rng(3)
    weight = onnx.numpy_helper.from_array(rng.standard_normal((512, 300)).astype(np.float32), "w")
    one = onnx.numpy_helper.from_array(np.array(1, np.int64), "one")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Softmax", ["product"], ["y"]),
        helper.make_node("Add", ["ids", "one"], ["next"]),
        helper.make_node("Greater", ["ids", "one"], ["flags"]),
    ]
    inputs = [("x", TensorProto.FLOAT, ["batch", 512]), ("ids", TensorProto.INT64, [None])]
    outputs = [("y", TensorProto.FLOAT, None), ("next", TensorProto.INT64, None), ("flags", TensorProto.BOOL, None)]
    described = [[helper.make_tensor_value_info(*tensor) for tensor in some] for some in (inputs, outputs)]
    graph = helper.make_graph(nodes, "toy", *described, [weight, one])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "toy.fp32.onnx")
    return RunRequest(folder, folder, "toy.fp32", {"provider": "cpu"})


def feed(rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rows)
    return {"x": rng.standard_normal((rows, 512)).astype(np.float32), "ids": np.arange(rows, dtype=np.int64)}


def test_a_session_gives_the_bits_that_polygraphys_runner_gives(tmp_path: Path) -> None:
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx

    request = network(tmp_path)
    runner = OnnxrtRunner(SessionFromOnnx(str(tmp_path / "toy.fp32.onnx"), providers=["cpu"]))
    with BACKEND.session(request) as session, runner:
        for rows in (1, 33, 4):
            expected, actual = runner.infer(feed(rows)), session.run(feed(rows))
            assert list(actual) == list(expected) == ["y", "next", "flags"]
            for name, array in expected.items():
                assert (actual[name].dtype, actual[name].shape) == (array.dtype, array.shape)
                assert actual[name].tobytes() == array.tobytes(), name


def test_a_session_gets_the_options_that_polygraphy_gave_it(tmp_path: Path) -> None:
    from polygraphy.backend.onnxrt import SessionFromOnnx

    network(tmp_path)
    theirs = SessionFromOnnx(str(tmp_path / "toy.fp32.onnx"), providers=["cpu"])()
    ours = _onnxruntime.open_session(tmp_path / "toy.fp32.onnx", "cpu")
    assert ours.get_providers() == theirs.get_providers()
    expected, actual = theirs.get_session_options(), vars(ours)["_sess_options"]
    for option in ("intra_op_num_threads", "inter_op_num_threads", "graph_optimization_level", "execution_mode"):
        assert getattr(actual, option) == getattr(expected, option), option


def test_threads_of_a_session_that_ran_leave_the_cpus_to_the_next_one(tmp_path: Path) -> None:
    network(tmp_path)
    opened = _onnxruntime.open_session(tmp_path / "toy.fp32.onnx", "cpu")
    assert vars(opened)["_sess_options"].get_session_config_entry("session.force_spinning_stop") == "1"


def test_a_session_tells_what_it_takes(tmp_path: Path) -> None:
    with BACKEND.session(network(tmp_path)) as session:
        assert dict(session.inputs) == {
            "x": TensorSpec("x", "float32", ("batch", 512)),
            "ids": TensorSpec("ids", "int64", ("",)),
        }


def test_what_a_run_gave_stays_as_it_is(tmp_path: Path) -> None:
    with BACKEND.session(network(tmp_path)) as session:
        first = session.run(feed(4))
        kept = {name: array.copy() for name, array in first.items()}
        for _ in range(3):
            session.run({name: array[::-1] for name, array in feed(4).items()})
        assert all(np.array_equal(first[name], kept[name]) for name in kept)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": None}, "toy.fp32.onnx: input 'ids' is missing; the model takes x, ids"),
        ({"idz": np.ones(4, np.int64)}, "toy.fp32.onnx: there is no input 'idz'; did you mean 'ids'?"),
        ({"x": np.ones((4, 512))}, "input 'x' is float64[4, 512], the model takes float32[batch, 512]"),
        ({"x": np.ones((4, 8), np.float32)}, "input 'x' is float32[4, 8], the model takes float32[batch, 512]"),
        ({"ids": np.ones((4, 1), np.int64)}, "input 'ids' is int64[4, 1], the model takes int64[any]"),
    ],
)
def test_arrays_that_do_not_suit_are_one_clear_error(
    tmp_path: Path, changes: dict[str, np.ndarray | None], message: str
) -> None:
    arrays = {name: array for name, array in {**feed(4), **changes}.items() if array is not None}
    with BACKEND.session(network(tmp_path)) as session, pytest.raises(BuildError) as error:
        session.run(arrays)
    assert message in str(error.value)


def test_what_onnx_runtime_cannot_run_is_an_error_in_its_own_words(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "z"], ["y"])],
        "toy",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [name]) for name in ("x", "z")],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "toy.fp32.onnx")
    with (
        BACKEND.session(RunRequest(tmp_path, tmp_path, "toy.fp32", {})) as session,
        pytest.raises(BuildError, match=r"toy\.fp32\.onnx: ONNX Runtime cannot run it: .*Add"),
    ):
        session.run({"x": np.ones(2, np.float32), "z": np.ones(3, np.float32)})


def test_a_closed_session_says_so(tmp_path: Path) -> None:
    with BACKEND.session(network(tmp_path)) as session:
        session.run(feed(1))
    with pytest.raises(BuildError, match=r"toy\.fp32\.onnx: its session is closed"):
        session.run(feed(1))

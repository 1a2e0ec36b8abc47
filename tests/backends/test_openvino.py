"""OpenVINO on this machine's CPU: blobs of a small graph are built, run and inspected; faults are planted in them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from toy_graphs import info, n, toy

from sam3_build import registry
from sam3_build.backends import _openvino
from sam3_build.backends._openvino_layers import Layer, types_of
from sam3_build.backends.openvino import BACKEND, OpenVinoOptions
from sam3_build.compare.judge import default_gates, holds, type_gates
from sam3_build.errors import BuildError
from sam3_build.graph import gemms
from sam3_build.params import NetworkParams, PrecisionParams
from sam3_build.plugins import BuildRequest, RunRequest, Session
from sam3_build.spec import Json, Processors, Shapes
from sam3_build.stages import verify

OPTIONS = asdict(OpenVinoOptions())
CPU: Mapping[str, Json] = {
    "openvino": "2026.4.1",
    "device": "CPU",
    "name": "Some CPU",
    "capabilities": ["BF16", "FP32", "INT8"],
}
NAMES = ("net.fc1/MatMul_0", "net.fc2/MatMul_0", "net/MatMul_0")
X = np.random.default_rng(0).standard_normal((3, 16), np.float32)

pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")


@pytest.fixture(scope="session")
def has_bf16() -> None:
    """Skip where the CPU has no BF16 kernels."""
    if lacking("bf16"):
        pytest.skip("this CPU has no BF16 kernels")


def lacking(precision: str) -> str | None:
    assert BACKEND.probe and BACKEND.lacks_kernels
    return BACKEND.lacks_kernels(OPTIONS, BACKEND.probe(), registry.precision(precision))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph of two layers and a product of activations, in FP32 and BF16, what it gives, and blobs of it."""
    folder = tmp_path_factory.mktemp("openvino")
    write_graph(folder, "toy.fp32", scale=1.0)
    params = PrecisionParams(component="toy", precision="bf16", keep_fp32=(), fp32_nodes=(), options={}, locked=None)
    registry.stage("precision").run(params.document(), {"onnx": folder}, folder)
    (folder / "reference").mkdir()
    (folder / "built").mkdir()
    for precision in ("fp32", "bf16"):
        build(folder, f"toy.{precision}", folder / "built")
    with opened(folder, "toy.fp32") as session:
        outputs = session.run({"x": X})
    np.savez(folder / "reference" / "case.npz", **{"inputs/x": X, "outputs/y": outputs["y"]})
    return folder


def write_graph(folder: Path, stem: str, scale: float) -> None:
    rng = np.random.default_rng(1)
    weights = {f"w{i}": rng.standard_normal((16, 16), np.float32) / 4 for i in (1, 2)}
    weights["w2"] *= np.float32(scale)
    nodes = [
        n("MatMul", ["x", "w1"], ["a"], NAMES[0]),
        n("Add", ["a", "b1"], ["b"], "net.fc1/Add_0"),
        n("Relu", ["b"], ["c"], "net/Relu_0"),
        n("MatMul", ["c", "w2"], ["d"], NAMES[1]),
        n("Transpose", ["d"], ["e"], "net/Transpose_0", perm=[1, 0]),
        n("MatMul", ["d", "e"], ["y"], NAMES[2]),
    ]
    constants = {**weights, "b1": rng.standard_normal(16).astype(np.float32)}
    model = toy(nodes, [info("x", dims=("batch", 16))], [info("y", dims=("batch", "batch"))], constants)
    onnx.save(model, folder / f"{stem}.onnx")


def shapes(low: int, high: int) -> dict[str, Shapes]:
    return {"x": ((low, 16), (high, 16), (high, 16))}


def build(folder: Path, stem: str, out: Path, *profiles: dict[str, Shapes]) -> None:
    BACKEND.build(BuildRequest(folder / f"{stem}.onnx", stem, OPTIONS, profiles), out)


def request(folder: Path, stem: str, built: Path | None = None) -> RunRequest:
    return RunRequest(built or folder / "built", folder, stem, OPTIONS)


def opened(folder: Path, stem: str, built: Path | None = None) -> Iterator[Session]:
    return BACKEND.session(request(folder, stem, built))  # type: ignore[return-value]


def copied(folder: Path, tmp_path: Path, stem: str, source: str | None = None) -> Path:
    """Return a folder with the blob and terms of `source` under the names of `stem`."""
    for extension in (".blob", _openvino.TERMS):
        shutil.copy(folder / "built" / f"{source or stem}{extension}", tmp_path / f"{stem}{extension}")
    return tmp_path


def expected(folder: Path) -> np.ndarray:
    return np.load(folder / "reference" / "case.npz")["outputs/y"]


# ------------------------------------------------------------------ sound ones


def test_a_blob_gives_what_onnx_runtime_gives(folder: Path) -> None:
    import onnxruntime

    runtime = onnxruntime.InferenceSession(folder / "toy.fp32.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(expected(folder), runtime.run(None, {"x": X})[0], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("has_bf16")
def test_a_bf16_file_runs_in_bf16_and_rounds_as_bf16_does(folder: Path) -> None:
    with opened(folder, "toy.bf16") as session:
        actual = session.run({"x": X})["y"]
    error = np.abs(actual - expected(folder)).max() / np.abs(expected(folder)).max()
    assert 1e-4 < error < 2e-2
    assert BACKEND.layer_types
    assert BACKEND.layer_types(request(folder, "toy.bf16")) == dict.fromkeys(NAMES, "BFLOAT16")
    assert BACKEND.layer_types(request(folder, "toy.fp32")) == dict.fromkeys(NAMES, "FLOAT")


def test_outputs_are_the_callers_own_and_inputs_are_what_the_graph_takes(folder: Path) -> None:
    with opened(folder, "toy.fp32") as session:
        assert (session.inputs["x"].dtype, session.inputs["x"].dims) == ("float32", ("", 16))
        first = session.run({"x": X})["y"]
        before = first.copy()
        session.run({"x": 2 * X})
        assert first.tobytes() == before.tobytes()
        with pytest.raises(BuildError, match=r"toy\.fp32\.blob: input 'x' is float64\[3, 16\], the model takes"):
            session.run({"x": X.astype(np.float64)})
    with pytest.raises(BuildError, match="its session is closed"):
        session.run({"x": X})


def test_a_blob_takes_the_shapes_of_its_profiles_and_no_others(folder: Path, tmp_path: Path) -> None:
    build(folder, "toy.fp32", tmp_path, shapes(1, 2), shapes(4, 5))
    with opened(folder, "toy.fp32", tmp_path) as session:
        assert session.run({"x": X[:2]})["y"].shape == (2, 2)
        assert session.run({"x": np.repeat(X, 2, 0)[:5]})["y"].shape == (5, 5)
        with pytest.raises(
            BuildError, match=r"x\[0\] is 3, and shape profile 1 takes 1 to 2; .* profile 2 takes 4 to 5"
        ):
            session.run({"x": X})


@pytest.mark.usefixtures("has_bf16")
def test_openvinos_cast_to_bf16_adds_half_a_unit_only_where_the_last_bit_that_stays_is_odd(tmp_path: Path) -> None:
    """docs/precisions.md explains by this why real standard deviations are too small."""
    nodes = [
        n("Cast", ["x"], ["low"], to=onnx.TensorProto.BFLOAT16),
        n("Cast", ["low"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    onnx.save(toy(nodes, [info("x", dims=("batch", 16))], [info("y", dims=("batch", 16))]), tmp_path / "toy.fp32.onnx")
    build(tmp_path, "toy.fp32", tmp_path)
    values = np.random.default_rng(0).standard_normal((64, 16), np.float32)
    bits = values.view(np.uint32)
    rounded = ((bits + ((bits & 0x10000) >> 1)) & 0xFFFF0000).view(np.float32)
    with opened(tmp_path, "toy.fp32", tmp_path) as session:
        assert session.run({"x": values})["y"].tobytes() == rounded.tobytes()


# ------------------------------------------------------------------ planted faults


@pytest.mark.usefixtures("has_bf16")
def test_a_blob_that_is_imported_without_its_hint_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_openvino, "settings", lambda device, threads: {})
    with pytest.raises(
        BuildError, match=r"toy\.fp32\.blob: OpenVINO computes it with the hint bf16, and was given f32"
    ):
        opened(folder, "toy.fp32").__enter__()


def test_a_blob_that_lacks_a_profile_is_refused(folder: Path, tmp_path: Path) -> None:
    build(folder, "toy.fp32", tmp_path, shapes(1, 2), shapes(4, 5))
    terms = (tmp_path / f"toy.fp32{_openvino.TERMS}").read_bytes()
    build(folder, "toy.fp32", tmp_path, shapes(1, 2))
    (tmp_path / f"toy.fp32{_openvino.TERMS}").write_bytes(terms)
    with pytest.raises(BuildError, match="takes 1 to 2 on axis 0 of 'x', and its shape profiles 1 to 5: a profile is"):
        opened(folder, "toy.fp32", tmp_path).__enter__()


def test_a_blob_of_other_weights_under_the_right_name_fails_its_gates(folder: Path, tmp_path: Path) -> None:
    write_graph(tmp_path, "toy.fp32", scale=1.05)
    build(tmp_path, "toy.fp32", tmp_path)
    assert failed(folder, tmp_path) == {"max_abs_over_std"}
    assert failed(folder, folder / "built") == set()


def failed(folder: Path, built: Path) -> set[str]:
    """Verify a blob for FP32; return the gates that what was measured does not pass."""
    out = built / "out"
    out.mkdir(exist_ok=True)
    params = NetworkParams(component="toy", precision="fp32", backend="openvino", options=OPTIONS).document()
    inputs = {"onnx": folder, "reference": folder / "reference", "built": built}
    verify.run({**params, "keep_outputs": False, "rows": 0}, inputs, out)
    metrics = json.loads((out / "statistics.json").read_text())["outputs"]["y"]["metrics"]
    return {
        g.metric for g in default_gates("fp32", "float32") if metrics.get(g.metric) and not holds(g, metrics[g.metric])
    }


def test_a_blob_in_fp32_that_is_sold_as_bf16_fails_the_gate_of_types(folder: Path, tmp_path: Path) -> None:
    built = copied(folder, tmp_path, "toy.bf16", source="toy.fp32")
    metrics = types(folder, built)
    assert metrics == {"gemms": 3, "low_gemms": 0, "low_share": 0.0}
    assert {gate.metric for gate in type_gates("bf16") if not holds(gate, metrics[gate.metric])} == set(metrics)


@pytest.mark.usefixtures("has_bf16")
def test_a_blob_in_bf16_passes_the_gate_of_types(folder: Path) -> None:
    assert types(folder, folder / "built") == {"gemms": 0, "low_gemms": 3, "low_share": 1.0}


def types(folder: Path, built: Path) -> dict[str, float]:
    params = NetworkParams(component="toy", precision="bf16", backend="openvino", options=OPTIONS)
    written = PrecisionParams(component="toy", precision="bf16", keep_fp32=(), fp32_nodes=(), options={}, locked=None)
    metrics = gemms.measure(params, written, {"onnx": folder, "fp32": fp32_alone(folder), "built": built})["metrics"]
    assert isinstance(metrics, dict)
    return metrics  # type: ignore[return-value]


def fp32_alone(folder: Path) -> Path:
    place = folder / "fp32"
    place.mkdir(exist_ok=True)
    shutil.copy(folder / "toy.fp32.onnx", place)
    return place


@pytest.mark.parametrize(
    ("field", "other"), [("openvino", "2026.3.0"), ("name", "Another CPU"), ("capabilities", ["FP32"])]
)
def test_a_blob_of_another_device_or_release_is_refused_by_the_first_field_that_differs(
    folder: Path, tmp_path: Path, field: str, other: Json
) -> None:
    built = copied(folder, tmp_path, "toy.fp32")
    path = built / f"toy.fp32{_openvino.TERMS}"
    terms = json.loads(path.read_text())
    terms["device"] |= {field: other, "requirements": "others too"}
    path.write_text(json.dumps(terms))
    with pytest.raises(
        BuildError, match=rf"toy\.fp32\.blob was built for another device: its {field} is .* build it here"
    ):
        opened(folder, "toy.fp32", built).__enter__()


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"no blob at all" * 99, lambda b: b""])
def test_a_blob_that_opens_nowhere_is_refused_in_openvinos_words(
    folder: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    built = copied(folder, tmp_path, "toy.fp32")
    blob = built / "toy.fp32.blob"
    blob.write_bytes(damage(blob.read_bytes()))
    with pytest.raises(BuildError, match=r"toy\.fp32\.blob: OpenVINO cannot import it: "):
        opened(folder, "toy.fp32", built).__enter__()


def test_a_graph_that_openvino_does_not_read_is_refused_in_its_words(tmp_path: Path) -> None:
    (tmp_path / "toy.fp32.onnx").write_bytes(b"junk")
    with pytest.raises(BuildError, match=r"toy\.fp32\.onnx: OpenVINO cannot build it for CPU: "):
        build(tmp_path, "toy.fp32", tmp_path)


def test_a_key_has_the_release_and_what_openvino_says_of_the_cpu() -> None:
    assert BACKEND.probe
    fields = BACKEND.device_fields(OPTIONS, BACKEND.probe())
    assert list(fields) == ["openvino", "device", "name", "capabilities", "requirements"]
    assert str(fields["requirements"]).partition(";isa=")[2], "AMX or AVX-512: capabilities do not tell them apart"
    assert BACKEND.tools(OPTIONS) == ("openvino",)


# ------------------------------------------------------------------ names of layers


def product_and_bias() -> onnx.GraphProto:
    nodes = [
        n("MatMul", ["x", "w"], ["a"], "fc/MatMul_0"),
        n("Add", ["a", "b"], ["y"], "fc/Add_0"),
    ]
    graph: onnx.GraphProto = toy(
        nodes, [info("x")], [info("y")], {"w": np.eye(4, dtype=np.float32), "b": np.ones(4, np.float32)}
    ).graph
    return graph


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ([Layer("FullyConnected", ("fc/MatMul_0",), "bf16", ())], "BFLOAT16"),
        ([Layer("FullyConnected", ("fc/Add_0",), "i8", ())], "INT8"),
        ([Layer("FullyConnected", ("y",), "f32", ())], "FLOAT"),  # the last layer bears the name of the output
        ([Layer("Eltwise", ("fc/Add_0",), "f32", ())], None),
        ([Layer("Subgraph", ("fc/Add_0",), "u8", ("u8", "bf16", "bf16"))], "BFLOAT16"),  # its first input is a mask
        ([Layer("Subgraph", ("fc/Add_0",), "bf16", ("f32", "bf16"))], None),
        ([Layer("FullyConnected", ("other/MatMul_0",), "f32", ())], None),
        ([Layer("FullyConnected", ("fc/MatMul_0",), "dynamic", ())], None),
    ],
)
def test_a_product_is_found_by_its_name_or_by_what_was_fused_behind_it(layers: list[Layer], found: str | None) -> None:
    assert types_of(product_and_bias(), layers) == ({"fc/MatMul_0": found} if found else {})


def test_the_first_product_of_an_attention_is_found_in_the_subgraph_of_both_and_in_no_other_layer() -> None:
    nodes = [
        n("MatMul", ["x", "k"], ["a"], "attn/MatMul_0"),
        n("Softmax", ["a"], ["b"], "attn/Softmax_0"),
        n("MatMul", ["b", "v"], ["y"], "attn/MatMul_1"),
    ]
    graph = toy(nodes, [info("x")], [info("y")], dict.fromkeys("kv", np.eye(4, dtype=np.float32))).graph
    both = [Layer("Subgraph", ("attn/MatMul_1",), "bf16", ("bf16", "bf16"))]
    assert types_of(graph, both) == dict.fromkeys(("attn/MatMul_0", "attn/MatMul_1"), "BFLOAT16")
    assert types_of(graph, [Layer("MatMul", ("attn/MatMul_1",), "bf16", ())]) == {"attn/MatMul_1": "BFLOAT16"}


# ------------------------------------------------------------------ what a target asks for


def test_fp16_is_impossible_on_a_cpu_and_says_why() -> None:
    assert BACKEND.impossible(OPTIONS, registry.precision("fp16")) == (
        "fp16: on a CPU, OpenVINO computes in FLOAT what a file has in FLOAT16, silently; it keeps FLOAT, "
        "BFLOAT16, INT8 (bf16 is the 16-bit precision of a CPU)"
    )
    for precision in ("fp32", "bf16", "int8_matmul"):
        assert BACKEND.impossible(OPTIONS, registry.precision(precision)) is None
    assert BACKEND.impossible(OPTIONS | {"threads": 0}, registry.precision("fp32")) == (
        "threads is 0: it must be 1 or more; leave it out for as many as OpenVINO takes"
    )


def test_openvino_computes_an_fp16_file_in_fp32_on_a_cpu(folder: Path, tmp_path: Path) -> None:
    """Why FP16 is impossible there: kernels of that type are not used under the hint f32."""
    params = PrecisionParams(component="toy", precision="fp16", keep_fp32=(), fp32_nodes=(), options={}, locked=None)
    registry.stage("precision").run(params.document(), {"onnx": fp32_alone(folder)}, tmp_path)
    build(tmp_path, "toy.fp16", tmp_path)
    assert BACKEND.layer_types
    assert set(BACKEND.layer_types(request(tmp_path, "toy.fp16", tmp_path)).values()) == {"FLOAT"}


def test_a_type_without_kernels_on_this_cpu_is_blocked_and_the_others_are_not() -> None:
    assert BACKEND.lacks_kernels
    old = Processors({"CPU": {**CPU, "capabilities": ["FP32", "INT8"]}})
    assert BACKEND.lacks_kernels(OPTIONS, old, registry.precision("bf16")) == (
        "bf16: this CPU (Some CPU) has no BFLOAT16 kernels, OpenVINO says: FP32, INT8"
    )
    assert BACKEND.lacks_kernels(OPTIONS, old, registry.precision("fp32")) is None
    assert BACKEND.lacks_kernels(OPTIONS, Processors({"CPU": CPU}), registry.precision("bf16")) is None


@pytest.mark.parametrize(
    ("device", "found", "message"),
    [
        ("CPU", None, "the Python package openvino is not installed (pip install 'sam3-build[openvino]')"),
        ("NPU", Processors({"CPU": CPU}), "OpenVINO finds no NPU on this machine, only CPU"),
        ("CPU", Processors(problem="OpenVINO cannot be asked"), "OpenVINO cannot be asked"),
        ("CPU", Processors({"CPU": CPU}), None),
    ],
)
def test_a_machine_says_what_it_lacks(device: str, found: Processors | None, message: str | None) -> None:
    assert BACKEND.missing(OPTIONS | {"device": device}, found) == message
    assert BACKEND.cannot_run(OPTIONS | {"device": device}, found) == message

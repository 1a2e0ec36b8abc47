from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from gpus import A10, RTX_4090

from sam3_build import registry
from sam3_build.backends import _tensorrt
from sam3_build.backends.tensorrt_rtx import BACKEND, COMPUTE_CAPABILITIES

ADA = {"compute_capabilities": ["8.9"]}

# Builds in a process of its own, as the worker does: the environment must be set before Polygraphy is imported.
BUILD = """
import json, logging, sys
from pathlib import Path
from sam3_build import layers
from sam3_build.backends.tensorrt_rtx import BACKEND
from sam3_build.errors import BuildError
from sam3_build.plugins import BuildRequest
logging.basicConfig(level=logging.INFO)
onnx, out, options, profiles = sys.argv[1:]
try:
    facts = BACKEND.build(BuildRequest(Path(onnx), "toy", json.loads(options), tuple(json.loads(profiles))), Path(out))
    loaded = [m for m in layers.RUN_ONLY if "sam3_build." + m in sys.modules]
    assert not loaded, f"a build depends on {loaded}, and its key leaves them out"
    print(json.dumps(facts))
except BuildError as error:
    print(error)
    sys.exit(3)
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy(tmp_path_factory.mktemp("onnx") / "toy.onnx", "Relu")


def save_toy(path: Path, operator: str) -> Path:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32), "layer.w")
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "layer.w"], ["hidden"], name="layer/MatMul_0"),
            helper.make_node(operator, ["hidden"], ["y"], name=f"layer/{operator}_0"),
        ],
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "rows", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


PROFILE = {"x": [[1, 1, 8], [2, 4, 8], [4, 8, 8]]}


def build(
    onnx: Path, out: Path, capabilities: list[str], profiles: list[dict[str, list[list[int]]]] | None = None
) -> subprocess.CompletedProcess[str]:
    out.mkdir()
    options = json.dumps({"compute_capabilities": capabilities})
    return subprocess.run(
        [sys.executable, "-c", BUILD, onnx, out, options, json.dumps([PROFILE] if profiles is None else profiles)],
        env={**os.environ, **BACKEND.env, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_strongly_typed_engine_is_built_without_a_gpu(toy: Path, tmp_path: Path) -> None:
    done = build(toy, tmp_path / "out", ["8.9"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"compute_capabilities": ["8.9"], "profiles": 1}
    engine = (tmp_path / "out" / "toy.engine").read_bytes()
    assert engine[:4] == b"vtrt"
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["toy.engine"]


def test_the_order_of_capabilities_changes_nothing_in_the_engine(toy: Path, tmp_path: Path) -> None:
    digests = set()
    for number, capabilities in enumerate((["8.6", "12.0", "8.9"], ["12.0", "8.9", "8.6"])):
        assert build(toy, tmp_path / str(number), capabilities).returncode == 0
        digests.add(hashlib.sha256((tmp_path / str(number) / "toy.engine").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_one_engine_takes_two_profiles(toy: Path, tmp_path: Path) -> None:
    one = build(toy, tmp_path / "one", ["8.9"])
    two = build(toy, tmp_path / "two", ["8.9"], [PROFILE, {"x": [[1, 1, 8], [1, 1, 8], [1, 1, 8]]}])
    assert json.loads(two.stdout.splitlines()[-1])["profiles"] == 2
    assert one.returncode == two.returncode == 0
    assert (tmp_path / "one" / "toy.engine").read_bytes() != (tmp_path / "two" / "toy.engine").read_bytes()


def test_tf32_is_off(toy: Path, tmp_path: Path) -> None:
    done = build(toy, tmp_path / "out", ["8.9"])
    assert done.returncode == 0
    flags = next(line for line in done.stderr.splitlines() if "Flags " in line)
    assert "STRONGLY_TYPED" in flags
    assert "TF32" not in flags


def test_the_builders_progress_goes_to_the_log(toy: Path, tmp_path: Path) -> None:
    done = build(toy, tmp_path / "out", ["8.9"])
    said = [int(found) for found in re.findall(r"progress: (\d+) % \(\w", done.stderr)]
    assert said == sorted(said) and len(said) > 2 and said[-1] > 60


def test_a_node_that_cannot_be_parsed_is_named_with_tensorrts_own_words(tmp_path: Path) -> None:
    onnx = save_toy(tmp_path / "toy.onnx", "Det")
    done = build(onnx, tmp_path / "out", ["8.9"])
    assert done.returncode == 3, done.stderr
    said = done.stdout
    assert "toy.onnx for compute capabilities 8.9: TensorRT-RTX cannot build it, at layer/Det_0 (Det)." in said
    assert "UNSUPPORTED_NODE" in said
    assert "Traceback" not in said
    assert not list((tmp_path / "out").iterdir())


def test_a_node_that_cannot_be_compiled_is_named_with_tensorrts_own_words(toy: Path, tmp_path: Path) -> None:
    done = build(toy, tmp_path / "out", ["7.5"])
    assert done.returncode == 3, done.stderr
    assert "at layer/MatMul_0 (MatMul)" in done.stdout
    assert "FP32 GEMM is not supported" in done.stdout


def test_a_profile_that_the_graph_contradicts_is_an_error(toy: Path, tmp_path: Path) -> None:
    done = build(toy, tmp_path / "out", ["8.9"], [{"x": [[1, 1, 7], [1, 1, 7], [1, 1, 7]]}])
    assert done.returncode == 3, done.stderr
    assert "toy.onnx" in done.stdout
    assert not list((tmp_path / "out").iterdir())


def test_the_list_of_capabilities_is_the_installed_librarys() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    names = [name for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    assert sorted(names) == sorted(f"SM{c.replace('.', '')}" for c in COMPUTE_CAPABILITIES)


@pytest.mark.parametrize(
    ("capabilities", "precision", "message"),
    [
        (["9.0"], "fp16", "cannot build for compute capability 9.0; this release takes 7.5, 8.0, 8.6, 8.9, 12.0, 12.1"),
        (["8.9", "sm90"], "fp16", "cannot build for compute capability sm90"),
        ([], "fp16", "compute_capabilities is empty; this release takes 7.5"),
        (["8.9", "8.9"], "fp16", "compute capability 8.9 is listed twice"),
        (["7.5"], "bf16", "no BFLOAT16 on compute capability 7.5; leave it out, or build precisions that multiply"),
        (["7.5"], "int8_matmul", "no FP32 matrix multiplication on compute capability 7.5"),
        (["7.5"], "fp32", "no FP32 matrix multiplication on compute capability 7.5"),
        (["8.9", "7.5"], "fp32", "no FP32 matrix multiplication on compute capability 7.5"),
    ],
)
def test_what_no_machine_can_build_says_why(capabilities: list[str], precision: str, message: str) -> None:
    assert message in str(BACKEND.impossible({"compute_capabilities": capabilities}, registry.precision(precision)))


def test_everything_else_is_possible() -> None:
    assert BACKEND.impossible({"compute_capabilities": list(COMPUTE_CAPABILITIES)}, registry.precision("fp16")) is None
    assert (
        BACKEND.impossible({"compute_capabilities": list(COMPUTE_CAPABILITIES[1:])}, registry.precision("fp32")) is None
    )


def test_the_key_holds_the_system_and_the_capabilities_in_one_order() -> None:
    fields = BACKEND.device_fields({"compute_capabilities": ["12.0", "8.6", "8.9"]}, None)
    assert fields == BACKEND.device_fields({"compute_capabilities": ["8.6", "8.9", "12.0"]}, RTX_4090)
    assert fields["compute_capabilities"] == ["8.6", "8.9", "12.0"]
    if sys.platform == "linux":
        assert fields["os"] == f"linux-{os.uname().machine}"


def test_a_missing_library_is_named_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tensorrt, "find_spec", lambda name: None if name == "tensorrt_rtx" else object())
    assert BACKEND.missing(ADA, None) == "the Python package tensorrt_rtx is not installed (pip install tensorrt-rtx)"
    monkeypatch.setattr(_tensorrt, "find_spec", lambda name: object())
    assert BACKEND.missing(ADA, None) is None


def test_an_engine_runs_on_the_generations_that_it_is_for_and_on_no_others() -> None:
    assert BACKEND.cannot_run(ADA, RTX_4090) is None
    said = "its engine is for compute capability 8.9; this machine's GPU has 8.6"
    assert BACKEND.cannot_run(ADA, A10) == said
    assert BACKEND.needs_gpu(ADA) == ("run",)


def test_asking_about_a_target_imports_nothing_heavy() -> None:
    code = (
        "import sys; from sam3_build import registry; from sam3_build.backends.tensorrt_rtx import BACKEND as b\n"
        "o, fp32 = {'compute_capabilities': ['8.9']}, registry.precision('fp32')\n"
        "b.impossible(o, fp32), b.missing(o, None), b.needs_gpu(o), b.runs(o), b.tools(o), b.device_fields(o, None)\n"
        "print([m for m in ('tensorrt_rtx', 'polygraphy', 'numpy', 'onnx') if m in sys.modules])"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"

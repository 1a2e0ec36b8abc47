"""A precision is one file: it brings its types and its gates, and no other file knows it by name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from build_space import BuildSpace

from sam3_build.plugins import Precision

FILE = '''"""Made up by a test."""

from __future__ import annotations

from sam3_build.plugins import Precision

PRECISION = Precision(
    name="{name}",
    summary="made up",
    onnx_type="{onnx_type}",
    gates={{"cosine": 0.9, "max_abs_over_range": 0.3, "std_ratio": (0.5, 1.5), "rows": 0.3}},
)
'''

GATES = """
import json, os
from pathlib import Path
from sam3_build.execution.session import open_session

comparisons = open_session(Path.cwd(), "toy", os.environ).plan.comparisons
print(json.dumps({c.name: {g.metric: g.threshold for g in c.gates["y"]} for c in comparisons if "y" in c.gates}))
"""


def with_precision(folder: Path, name: str, onnx_type: str, *, targets: str) -> BuildSpace:
    space = BuildSpace.create(folder)
    (space.root / "sam3_build" / "precisions" / f"{name}.py").write_text(FILE.format(name=name, onnx_type=onnx_type))
    manifest = space.root / "manifests" / "toy.yaml"
    lines = manifest.read_text().replace("precisions: [fp32, fp16]", f"precisions: [fp32, {name}]").split("\n")
    kept = [line for line in lines if not line.startswith(("tolerances", "  head:", "  ada:", "  cpu:", "targets:"))]
    manifest.write_text("\n".join(kept).replace("components:", "components:\n  head: {}") + f"targets: {targets}\n")
    return space


def test_a_new_precision_is_judged_by_its_own_gates_and_named_in_the_report(tmp_path: Path) -> None:
    space = with_precision(tmp_path / "p", "fp16_mine", "FLOAT16", targets="{cpu: {backend: onnxruntime}}")
    done = subprocess.run(
        [sys.executable, "-c", GATES], cwd=space.root, env=space.environ(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    gates = json.loads(done.stdout)["encoder.fp16_mine"]
    own = {"cosine": 0.9, "max_abs_over_range": 0.3, "std_ratio": [0.5, 1.5], "rows": 0.3}
    assert {metric: gates[metric] for metric in own} == own
    run = space.build("verify")
    assert "onnxruntime fp32 vs onnxruntime fp16_mine, emulated (range parity)" in run.output
    assert any(row["comparison"].endswith("fp16_mine, emulated (range parity)") for row in json.loads(space.report))


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("{backend: onnxruntime}", "fp8: ONNX Runtime has no FLOAT8E4M3FN kernels on a CPU"),
        ("{backend: onnxruntime, provider: cuda}", "fp8: ONNX Runtime has no FLOAT8E4M3FN kernels with CUDA"),
        (
            '{backend: tensorrt_rtx, compute_capabilities: ["8.9"]}',
            "fp8: TensorRT-RTX has no FLOAT8E4M3FN matrix multiplication",
        ),
        ("{backend: tensorrt}", "fp8: TensorRT has no FLOAT8E4M3FN matrix multiplication"),
    ],
)
def test_a_type_that_no_backend_takes_is_refused_before_any_work(tmp_path: Path, target: str, why: str) -> None:
    space = with_precision(tmp_path / "p", "fp8", "FLOAT8E4M3FN", targets=f"{{it: {target}}}")
    run = space.cli("plan")
    assert run.code == 1
    assert f"targets.it: {why}" in run.output


def test_a_precision_without_gates_of_its_own_is_no_precision() -> None:
    with pytest.raises(TypeError, match="gates"):
        Precision(name="fp8", summary="made up", onnx_type="FLOAT8E4M3FN")  # type: ignore[call-arg]

"""`sam3-build polygraphy`: what it writes is compared by Polygraphy itself, and a changed output fails there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import miniature
import numpy as np
import pytest

from sam3_build import registry
from sam3_build.compare.judge import gates_for
from sam3_build.compare.statistics import OutputStatistics
from sam3_build.diagnose.polygraphy_files import Iterations, split, tolerance, write
from sam3_build.errors import BuildError
from sam3_build.execution.session import open_session
from sam3_build.spec import ComponentSpec, TensorSpec

ROOT = miniature.ROOT


def compare(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """Run one of the lines as a shell in that folder would, by this environment's Polygraphy."""
    command, *words = shlex.split(line)
    argv = [sys.executable, str(Path(sys.executable).with_name(command)), *words]
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.ci
def test_polygraphy_passes_what_verify_passes_and_fails_an_output_that_was_changed(tmp_path: Path) -> None:
    miniature.folder("verify:text_encoder.fp32")
    argv = [sys.executable, "-m", "sam3_build", "polygraphy", "text_encoder", "fp32", "--out", str(tmp_path / "out")]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wrote, script, line = done.stdout.splitlines()
    files = ["inputs.json", "outputs.json", "run.sh", "text_encoder.fp32.onnx"]
    assert wrote == f"wrote {tmp_path}/out: {', '.join(files)}"
    assert script.startswith(f"{tmp_path}/out/run.sh compares again")
    line = line.strip()
    assert (tmp_path / "out" / "run.sh").read_text().splitlines()[-1] == line
    assert line.startswith("polygraphy run text_encoder.fp32.onnx --onnxrt --providers cpu --load-inputs inputs.json ")
    assert re.search(r"--rtol 0 --validate --atol text_features:0\.00\d+ text_mask:0$", line)
    passed = compare(tmp_path / "out", line)
    assert passed.returncode == 0 and "PASSED" in passed.stdout, passed.stdout + passed.stderr

    from polygraphy.comparator import RunResults

    results = RunResults.load(str(tmp_path / "out" / "outputs.json"))
    ((runner, iterations),) = results.items()
    assert runner == "pytorch fp32"
    features = np.array(iterations[0]["text_features"])
    features.flat[7] += 0.05 * features.std()
    iterations[0]["text_features"] = features
    results.save(str(tmp_path / "out" / "outputs.json"))
    failed = compare(tmp_path / "out", line)
    assert failed.returncode == 1 and "FAILED" in failed.stdout, failed.stdout + failed.stderr

    again = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 1 and again.stderr.startswith(f"{tmp_path}/out is not an empty folder"), again.stderr


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("decodr", "fp16", None), "manifest 'sam3_mini' has no component 'decodr'; did you mean 'decoder'?"),
        (("decoder", "fp61", None), "manifest 'sam3_mini' has no precision 'fp61'; did you mean 'fp16'?"),
        (("decoder", "fp16", "adda"), "manifest 'sam3_mini' has no target 'adda'; did you mean 'ada'?"),
        (("decoder", "fp16", "cpu"), "cpu runs the graph itself: leave --target out"),
    ],
)
def test_names_that_the_manifest_lacks_are_refused_before_anything_runs(
    tmp_path: Path, asked: tuple[str, str, str | None], said: str
) -> None:
    session = open_session(ROOT, miniature.MANIFEST, os.environ)
    with pytest.raises(BuildError) as error:
        write(session, *asked, tmp_path / "out", lambda action: pytest.fail(f"{action} ran"))
    assert str(error.value) == said and not (tmp_path / "out").exists()


TOY = ComponentSpec(
    "toy",
    (TensorSpec("x", "float32", ("batch", "length")),),
    (TensorSpec("y", "float32", ("batch",)),),
    (),
)


def test_what_has_no_rows_is_given_whole_to_each_group() -> None:
    table = TensorSpec("table", "float32", (3,))
    spec = ComponentSpec("toy", (*TOY.inputs, table), TOY.outputs, (), row_dim="batch")
    found: dict[int, Iterations] = {}
    feed = {"x": np.zeros((2, 4), np.float32), "table": np.arange(3, dtype=np.float32)}
    profile = {"batch": (1, 1, 1), "length": (1, 4, 4)}
    assert split(feed, {"y": np.zeros(2)}, spec, (profile,), "batch", found) is None
    assert [each["table"].tolist() for each in found[0].feeds] == [[0, 1, 2]] * 2


def test_a_case_is_split_into_the_rows_that_an_engine_takes_each_with_its_profile() -> None:
    short, long = {"batch": (1, 1, 2), "length": (1, 4, 4)}, {"batch": (1, 1, 1), "length": (5, 6, 8)}
    found: dict[int, Iterations] = {}
    for rows, length in ((3, 4), (2, 8)):
        x = np.arange(rows * length, dtype=np.float32).reshape(rows, length)
        assert split({"x": x}, {"y": x.sum(1)}, TOY, (short, long), "batch", found) is None
    assert [len(feed["x"]) for feed in found[0].feeds] == [2, 1]
    assert [len(feed["x"]) for feed in found[1].feeds] == [1, 1]
    for iterations in found.values():
        for feed, expected in zip(iterations.feeds, iterations.expected, strict=True):
            np.testing.assert_array_equal(feed["x"].sum(1), expected["y"])
    why = split({"x": np.zeros((1, 9), np.float32)}, {"y": np.zeros(1)}, TOY, (short, long), "batch", found)
    assert why == "length is 9, and shape profile 1 takes 1 to 4; length is 9, and shape profile 2 takes 5 to 8"


def test_tolerances_are_the_gates_in_the_units_of_the_output() -> None:
    reference = np.linspace(-3, 5, 1000, dtype=np.float32)
    found, equal = OutputStatistics("float32"), OutputStatistics("bool")
    found.add("case", reference, reference)
    equal.add("case", reference > 0, reference > 0)
    assert tolerance(gates_for("fp32", "float32", {}), found) == pytest.approx(1e-3 * reference.std(), rel=1e-4)
    assert tolerance(gates_for("fp16", "float32", {}), found) == pytest.approx(0.02 * 8, rel=1e-6)
    assert tolerance(gates_for("fp16", "bool", {}), equal) == 0


def test_every_backend_says_how_polygraphy_runs_what_it_built() -> None:
    options = {name: registry.backend(name).polygraphy for name in registry.names("backends")}
    assert {name: said and said({"provider": "cuda"}, "decoder.fp16") for name, said in options.items()} == {
        "onnxruntime": ("decoder.fp16.onnx", "--onnxrt", "--providers", "cuda"),
        "openvino": None,  # Polygraphy knows nothing of it
        "tensorrt": ("decoder.fp16.engine", "--model-type", "engine", "--trt"),
        "tensorrt_rtx": ("decoder.fp16.engine", "--model-type", "engine", "--trt"),
    }

"""`sam3-build device`: what a machine is and can do, as text that fits 100 columns and as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from build_space import ROOT, BuildSpace
from gpus import A10, RTX_4090

from sam3_build.backends import _tensorrt, onnxruntime
from sam3_build.commands import device
from sam3_build.manifest.load import load
from sam3_build.plan.resolve import Machine
from sam3_build.report.text import WIDTH

NONE = Machine(None, "none found on this machine")


def said(on: Machine) -> str:
    text = device.render(on, load("sam3_mini", ROOT))
    assert max(map(len, text.splitlines())) <= WIDTH
    return text


def test_a_machine_without_a_gpu_says_what_it_can_do_all_the_same() -> None:
    text = said(NONE)
    assert text.startswith("No NVIDIA GPU that can be used: none found on this machine\n")
    assert "    builds: no: building TensorRT engines needs a CUDA GPU; none found on this machine\n" in text
    assert "  cpu  (onnxruntime)\n    builds and runs: yes\n" in text
    ampere = (
        "  ampere  (tensorrt_rtx)\n    builds: yes\n"
        "    runs: no: running TensorRT-RTX engines needs a CUDA GPU; none found on this machine\n"
    )
    assert ampere in text


def test_the_generations_that_rtx_builds_for_are_listed() -> None:
    assert "  tensorrt_rtx for compute capability 7.5, 8.0, 8.6, 8.9, 12.0, 12.1  (tensorrt_rtx " in said(NONE)


def test_a_gpu_is_described_and_each_target_held_to_it() -> None:
    text = said(Machine(RTX_4090, ""))
    assert text.startswith(
        "NVIDIA GeForce RTX 4090, compute capability 8.9, 24564 MiB\n  driver 580.65.06, which runs "
    )
    assert "  ada  (tensorrt_rtx)\n    builds and runs: yes\n" in text
    assert "    runs: no: its engine is for compute capability 8.6; this machine's GPU has 8.9\n" in text
    assert "  ampere  (tensorrt_rtx)\n    builds and runs: yes\n" in said(Machine(A10, ""))


def test_what_is_not_installed_is_named_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "_is_installed", lambda name: False)
    monkeypatch.setattr(_tensorrt, "find_spec", lambda name: object() if name == "polygraphy" else None)
    text = " ".join(said(Machine(RTX_4090, "")).split())
    assert "tensorrt is not installed (pip install 'sam3-build[tensorrt]')" in text
    assert "onnxruntime-gpu is not installed (pip install onnxruntime-gpu)" in text
    assert "tensorrt_rtx is not installed (pip install tensorrt-rtx)" in text


def test_json_holds_the_same(built: BuildSpace) -> None:
    found = device.as_json(Machine(A10, ""), load("sam3_mini", ROOT))
    assert json.loads(json.dumps(found))["gpu"]["gpu_class"] == A10.gpu_class
    assert [t["name"] for t in json.loads(json.dumps(found))["targets"]] == [
        "openvino", "cpu", "ampere", "ada", "blackwell"
    ]  # fmt: skip
    run = built.cli("device", "--json")
    assert run.code == 0, run.output
    known = json.loads(run.output)
    assert [target["name"] for target in known["targets"]] == ["cpu", "ada"]
    assert (known["gpu"] is None) == bool(known["no_gpu"])


def test_a_manifest_that_cannot_be_read_does_not_hide_what_the_machine_is() -> None:
    argv = [sys.executable, "-m", "sam3_build", "device", "-m", "sam3_mimi"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "What it can do, by backend" in done.stdout and "The targets" not in done.stdout
    assert "did you mean 'sam3_mini'?" in done.stderr

"""Faults in real engines: what OpenVINO builds of an altered graph fails its gates, and localize names the block."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import miniature
import numpy as np
import onnx
import pytest
from miniature import ROOT
from onnx import numpy_helper
from test_localized_faults import Toy, network

from sam3_build import registry
from sam3_build.backends.openvino import BACKEND, OpenVinoOptions
from sam3_build.compare.judge import Verdict, gates_for, judge
from sam3_build.diagnose.localize import Located, conclude
from sam3_build.execution.session import open_session
from sam3_build.plugins import BuildRequest
from sam3_build.spec import Comparison, Json
from sam3_build.stages import build, localize, verify

pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")

OPENVINO: dict[str, Json] = {"backend": "openvino", "options": asdict(OpenVinoOptions()), "profiles": []}
FACTOR = np.float32(1.05)


def scaled(monkeypatch: pytest.MonkeyPatch, weight: str) -> None:
    """Let OpenVINO build, of every graph, one in which a weight is 1.05 times itself."""

    def built(request: BuildRequest, out: Path) -> Mapping[str, Json]:
        model = onnx.load(request.onnx)
        tensor = next(t for t in model.graph.initializer if t.name == weight)
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * FACTOR, weight))
        altered = out.with_name(f"{out.name}.altered") / request.onnx.name
        altered.parent.mkdir(exist_ok=True)
        onnx.save(model, altered)
        return BACKEND.build(replace(request, onnx=altered), out)

    backend = replace(BACKEND, build=built)
    monkeypatch.setattr(registry, "backend", lambda name: backend)


def located(scratch: Path, component: str, fp32: Path, reference: Path) -> tuple[Located, set[Verdict]]:
    """Build, verify and localize a component's FP32 engine, as the command does; return also the judge's verdicts."""
    for name in ("baseline", "built", "verified", "out"):
        (scratch / name).mkdir()
    inputs = {"onnx": fp32, "reference": reference}
    params = {"component": component, "precision": "fp32"}
    measured = params | {"keep_outputs": True, "rows": 0}
    verify.run(measured, inputs, scratch / "baseline")
    build.run(params | OPENVINO, inputs, scratch / "built")
    beside = {"baseline": scratch / "baseline", "built": scratch / "built"}
    verify.run(measured | OPENVINO, {**inputs, **beside}, scratch / "verified")
    localize.run(params | OPENVINO, {**inputs, "fp32": fp32}, scratch / "out")
    verified, depth = (
        json.loads((scratch / name).read_bytes()) for name in ("verified/statistics.json", "out/depth.json")
    )
    outputs = {name: found["dtype"] for name, found in verified["outputs"].items()}
    gates = {name: gates_for("fp32", dtype, {}) for name, dtype in outputs.items()}
    gates = {name: tuple(g for g in of if g.metric != "rows") for name, of in gates.items()}
    label = "onnxruntime fp32 vs openvino fp32"
    comparison = Comparison(component, label, "fp32", "openvino", "verify", None, tuple(outputs), gates)
    return conclude(comparison, depth, verified), {row.verdict for row in judge(comparison, verified)}


def test_a_sound_engine_passes_and_no_block_is_named(tmp_path: Path) -> None:
    space = Toy(tmp_path, network())
    found, verdicts = located(work(tmp_path), "net", space.root / "fp32", space.root / "reference")
    assert (found.parts, verdicts) == (None, {Verdict.PASS})


@pytest.mark.parametrize("block", [1, 3])
def test_an_engine_of_a_graph_with_one_scaled_weight_fails_and_its_block_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    space = Toy(tmp_path, network())
    scaled(monkeypatch, f"net.layers.{block}.fc2.weight")
    found, verdicts = located(work(tmp_path), "net", space.root / "fp32", space.root / "reference")
    assert Verdict.FAIL in verdicts
    assert found.parts and found.parts.block == f"net.layers.{block}", found.finding


def work(root: Path) -> Path:
    (root / "work").mkdir()
    return root / "work"


@pytest.mark.ci
def test_a_scaled_weight_in_a_real_engine_of_the_miniature_is_found_at_its_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fp32, reference = (
        miniature.folder(f"{verb}:vision_encoder{end}") for verb, end in (("precision", ".fp32"), ("reference", ""))
    )
    graph = onnx.load(fp32 / "vision_encoder.fp32.onnx").graph
    node = next(n for n in graph.node if n.name == "vision_encoder.backbone.layers.2.attention.o_proj/MatMul_0")
    scaled(monkeypatch, node.input[1])
    found, verdicts = located(work(tmp_path), "vision_encoder", fp32, reference)
    assert Verdict.FAIL in verdicts
    assert found.parts and found.parts.block == "vision_encoder.backbone.layers.2", found.finding


@pytest.mark.ci
def test_every_engine_of_the_miniature_that_this_cpu_has_kernels_for_passes_its_gates() -> None:
    session = open_session(ROOT, miniature.MANIFEST, {})
    engines = [c for c in session.plan.comparisons if c.target == "openvino"]
    assert {(c.component, c.precision) for c in engines} == {
        (component, precision)
        for component in ("vision_encoder", "text_encoder", "geometry_encoder", "decoder", "pipeline")
        for precision in ("fp32", "bf16")
    }
    for comparison in engines:
        if comparison.not_run:
            assert "has no BFLOAT16 kernels" in comparison.not_run
            continue
        statistics = json.loads((miniature.folder(str(comparison.action)) / "statistics.json").read_bytes())
        failed = [str(row.reason) for row in judge(comparison, statistics) if row.verdict == Verdict.FAIL]
        assert failed == [], comparison.name

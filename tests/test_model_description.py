"""model.json and verdicts.json: what is described of what a manifest makes, and what the judge says of each file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import miniature
import pytest

from sam3_build.compare.judge import Row, Verdict
from sam3_build.model_format import GRAPH, JudgedFile, ModelFile
from sam3_build.params import ModelParams
from sam3_build.report.file_verdicts import verdicts_of, write_verdicts
from sam3_build.spec import BASELINE
from sam3_build.stages import model

STEM = "text_encoder.fp32"


def params() -> ModelParams:
    return ModelParams.of(miniature.params("model"))


def test_every_file_that_this_machine_can_build_is_described_with_what_runs_it() -> None:
    files = params().files
    assert {(f.component, f.target, f.precision) for f in files} >= {
        ("decoder", None, "fp32"),
        ("decoder", "cpu", "fp16"),
        ("decoder", "ada", "fp16"),
    }
    (engine,) = (f for f in files if (f.component, f.target, f.precision) == ("decoder", "ada", "fp16"))
    assert (engine.backend, engine.path) == ("tensorrt_rtx", "decoder/decoder.fp16.ada.engine")
    assert engine.options == {"compute_capabilities": ["8.9"]} and engine.device["compute_capabilities"] == ["8.9"]
    assert (engine.row_dim, engine.profiles[0]["batch"]) == ("batch", (1, 1, 8))
    (graph,) = (f for f in files if (f.component, f.target, f.precision) == ("decoder", "cpu", "fp16"))
    assert (graph.path, graph.profiles, graph.row_dim) == ("decoder/decoder.fp16.onnx", (), None)


def test_digests_are_those_of_the_files_and_of_what_lies_beside_them(tmp_path: Path) -> None:
    folder = tmp_path / "built"
    folder.mkdir()
    for name in ("decoder.fp32.onnx", "decoder.fp32.onnx.data", "decoder.fp32.blob", "decoder.fp32.terms"):
        (folder / name).write_text(name)
    graph = ModelFile("decoder", "fp32", "onnxruntime", "decoder/decoder.fp32.onnx")
    blob = ModelFile(
        "decoder",
        "fp32",
        "openvino",
        "decoder/decoder.fp32.fast.blob",
        "fast",
        companions={"decoder/decoder.fp32.fast.terms": ""},
    )
    document = {**params().document(), "files": []}
    asked = ModelParams.of({**document, "files": ModelParams.of(document).document()["files"]})
    asked = ModelParams(**{**{n: getattr(asked, n) for n in asked._fields}, "files": (graph, blob)})
    inputs = {"decoder.fp32": folder, "decoder.fp32.fast": folder, "config": miniature.CONFIG}
    out = tmp_path / "out"
    out.mkdir()
    model.run(asked.document(), inputs, out)
    written = json.loads((out / "model.json").read_bytes())

    def digest(name: str) -> str:
        return hashlib.sha256(name.encode()).hexdigest()

    first, second = written["files"]
    assert first["sha256"] == digest("decoder.fp32.onnx")
    assert first["companions"] == {"decoder/decoder.fp32.onnx.data": digest("decoder.fp32.onnx.data")}
    assert second["sha256"] == digest("decoder.fp32.blob")
    assert second["companions"] == {"decoder/decoder.fp32.fast.terms": digest("decoder.fp32.terms")}
    assert "tokenizer" not in written and written["static"]["image_height"] == 168


def judged(verdicts: Mapping[str, Verdict]) -> list:
    """Return every comparison of the miniature, with a row that has the verdict of its name, else one that passed."""
    return [
        (c, (Row(c.component, c.label, "y", "cosine", 1.0, 0.9, verdicts.get(c.name, Verdict.PASS), None),))
        for c in miniature._session(miniature.MANIFEST).plan.comparisons
    ]


@pytest.fixture
def session():
    miniature.folder(f"precision:{STEM}")
    return miniature._session(miniature.MANIFEST)


def of_graph(session, precision: str, verdicts: Mapping[str, Verdict]) -> JudgedFile:
    record = session.resolver.resolve(f"precision:text_encoder.{precision}").record
    return verdicts_of(session, judged(verdicts))[record.files[f"text_encoder.{precision}.onnx"].sha256][GRAPH]


def test_a_file_has_the_verdicts_of_its_component_and_of_the_pipelines_that_run_it(session) -> None:
    assert of_graph(session, BASELINE, {}) == JudgedFile("pass", {"pipeline": "pass"})
    assert of_graph(session, BASELINE, {STEM: Verdict.FAIL}) == JudgedFile("fail", {"pipeline": "pass"})
    assert of_graph(session, BASELINE, {"pipeline.fp32": Verdict.NOT_JUDGED}).pipelines == {"pipeline": "not judged"}
    assert of_graph(session, BASELINE, {"decoder.fp32": Verdict.FAIL}) == JudgedFile("pass", {"pipeline": "pass"})
    assert of_graph(session, BASELINE, {f"{STEM}.openvino": Verdict.FAIL}) == JudgedFile("pass", {"pipeline": "pass"})


def test_a_low_precision_graph_is_marked_as_emulated(session) -> None:
    miniature.folder("precision:text_encoder.fp16")
    assert of_graph(session, "fp16", {}) == JudgedFile("pass", {"pipeline": "pass"}, emulated=True)


def test_verdicts_are_written_once(session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.view, "root", tmp_path)
    write_verdicts(session, judged({}))
    first = (tmp_path / "verdicts.json").stat()
    write_verdicts(session, judged({}))
    assert (tmp_path / "verdicts.json").stat().st_ino == first.st_ino
    write_verdicts(session, judged({STEM: Verdict.FAIL}))
    assert '"fail"' in (tmp_path / "verdicts.json").read_text()

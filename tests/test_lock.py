"""The lock file of a manifest: read with it, in the key of what it keeps in FP32, refused when it fits no more."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from build_space import copy_manifests
from onnx import numpy_helper
from toy_graphs import F, info, n, toy

from sam3_build.errors import BuildError, ManifestError
from sam3_build.graph import files
from sam3_build.graph.fingerprint import fingerprint
from sam3_build.manifest.load import load
from sam3_build.manifest.lock import lock_path, manifest_files
from sam3_build.manifest.lock_file import with_entry
from sam3_build.manifest.types import Lock
from sam3_build.plan.make import make_plan
from sam3_build.stages import precision

ROOT = Path(__file__).parents[1]
DIGEST = "5" * 64
ENTRY = {"graph": DIGEST, "keep_fp32": ["b/Mul_0", "a.layers[0]/Mul_0"], "nodes": 20, "trials": 7}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default manifest as `m.yaml` in a project of its own, the current folder."""
    copy_manifests(tmp_path)
    (tmp_path / "manifests" / "sam3_mini.yaml").rename(tmp_path / "manifests" / "m.yaml")
    monkeypatch.chdir(tmp_path / "manifests")
    return tmp_path


def write(text: str) -> None:
    Path("m.lock.yaml").write_text(text)


def test_what_a_search_wrote_is_read_back_by_component_and_precision(project: Path) -> None:
    Path("m.lock.yaml").write_bytes(with_entry(None, "decoder", "fp16", ENTRY) or b"")
    manifest = load("m", project)
    assert manifest.locks == {"decoder": {"fp16": Lock(DIGEST, ("a.layers[0]/Mul_0", "b/Mul_0"))}}
    assert [file.path.name for file in manifest.files] == ["m.yaml", "m.lock.yaml", "config.json"]


def test_a_lock_enters_the_keys_of_what_writes_and_checks_its_types_and_of_no_other(project: Path) -> None:
    before = {action.name: action for action in make_plan(load("m", project)).actions}
    Path("m.lock.yaml").write_bytes(with_entry(None, "decoder", "fp16", ENTRY) or b"")
    after = {action.name: action for action in make_plan(load("m", project)).actions}
    assert {name for name in after if after[name] != before[name]} == {
        "precision:decoder.fp16",
        "verify:decoder.fp16",  # which says again what the types are to be
    }
    assert after["precision:decoder.fp16"].params["locked"] == {
        "graph": DIGEST,
        "nodes": ["a.layers[0]/Mul_0", "b/Mul_0"],
    }
    assert "locked" not in before["precision:decoder.fp16"].params


def test_a_manifest_that_extends_another_does_not_take_its_lock(project: Path) -> None:
    Path("m.lock.yaml").write_bytes(with_entry(None, "decoder", "fp16", ENTRY) or b"")
    Path("child.yaml").write_text("extends: m.yaml\n")
    assert load("child", project).locks == {}


GRAPH = f"graph: '{DIGEST}'"
# what a lock file holds -> what is said of it
WRONG = {
    f"decodr:\n  fp16: {{{GRAPH}, keep_fp32: [a]}}\n": r"1: decodr: unknown component 'decodr'.*did you mean 'decoder'",
    f"decoder:\n  fp32: {{{GRAPH}, keep_fp32: [a]}}\n": r"2: decoder\.fp32: unknown precision 'fp32'.*delete this",
    f"decoder:\n  fp16: {{{GRAPH}}}\n": r"2: decoder\.fp16: required key 'keep_fp32' is missing; search again",
    "decoder:\n  fp16: {graph: 5, keep_fp32: [a]}\n": r"2: decoder\.fp16\.graph: must be the digest of the graph",
    f"decoder:\n  fp16: {{{GRAPH}, keep_fp32: [a, a]}}\n": r"2: decoder\.fp16\.keep_fp32: must be a list of node names",
    f"decoder:\n  fp16: {{{GRAPH}, keep_fp32: []}}\n": r"2: decoder\.fp16\.keep_fp32: must be a list of node names",
    f"decoder:\n  fp16: {{{GRAPH}, keep_fp16: [a], keep_fp32: [a]}}\n": r"2: decoder\.fp16\.keep_fp16: .*mean 'keep_",
    "decoder: [a]\n": "1: decoder: must be a mapping; search again",
    "decoder: {\n": "not valid YAML",
    "": "is empty",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_with_a_lock_is_named_with_its_line(project: Path, text: str) -> None:
    write(text)
    with pytest.raises(ManifestError) as caught:
        load("m", project)
    (problem,) = caught.value.problems
    assert re.match(rf"m\.lock\.yaml:.*{WRONG[text]}", problem), problem


def test_problems_of_manifest_and_lock_are_told_together(project: Path) -> None:
    write("decodr: {}\n")
    Path("m.yaml").write_text(Path("m.yaml").read_text().replace("\nopset: 20", "\nopset: 2"))
    with pytest.raises(ManifestError) as caught:
        load("m", project)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["m.yaml", "m.lock.yaml"]


def test_a_lock_is_no_manifest(project: Path) -> None:
    write("decodr: {}\n")
    assert lock_path(Path("m.yaml")) == Path("m.lock.yaml")
    assert "m.lock.yaml" not in [path.name for path in manifest_files(Path())]
    with pytest.raises(ManifestError, match=r"is the lock of a manifest and no manifest; write manifest=m$"):
        load("m.lock.yaml", project)
    with pytest.raises(ManifestError) as caught:
        load("mm", project)
    assert "lock" not in str(caught.value)


def test_entries_are_put_in_and_taken_out_and_the_rest_stays() -> None:
    one = with_entry(None, "head", "fp16", ENTRY)
    two = with_entry(one, "decoder", "fp16", {**ENTRY, "trials": 9})
    assert two is not None and two.index(b"decoder:") < two.index(b"head:")
    assert with_entry(two, "decoder", "fp16", None) == one
    assert with_entry(one, "head", "fp16", None) is None
    assert with_entry(None, "head", "fp16", None) is None


# ------------------------------------------------------------------ held against the graph


def chain(*names: str) -> onnx.ModelProto:
    tensors = ["x", *(f"t{i}" for i in range(1, len(names))), "y"]
    nodes = [n("Mul", [tensors[i], "two"], [tensors[i + 1]], name) for i, name in enumerate(names)]
    return toy(nodes, [info("x")], [info("y")], {"two": np.float32(2)})


def typed(tmp_path: Path, model: onnx.ModelProto, locked: dict[str, object]) -> dict[str, object]:
    """Run the precision stage with a lock; return its facts."""
    onnx.save(model, tmp_path / "toy.onnx")
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    params = {"component": "toy", "precision": "fp16", "keep_fp32": [], "fp32_nodes": [], "locked": locked}
    return dict(precision.run(params, {"onnx": tmp_path / "toy.onnx"}, out))


def digest_of(tmp_path: Path, model: onnx.ModelProto) -> str:
    onnx.save(model, tmp_path / "digested.onnx")
    return fingerprint(files.load(tmp_path / "digested.onnx"))


def test_locked_nodes_stay_fp32_by_their_literal_names(tmp_path: Path) -> None:
    model = chain("a.layers[0]/Mul_0", "a.layers0/Mul_0", "a/Mul_1")
    locked = {"graph": digest_of(tmp_path, model), "nodes": ["a.layers[0]/Mul_0"]}
    assert typed(tmp_path, model, locked)["kept"] == {"lock": 1}
    held = onnx.load(tmp_path / "out" / "toy.fp16.onnx")
    types = {t.name: t.data_type for t in held.graph.initializer}
    assert sorted(types.values()) == [F, onnx.TensorProto.FLOAT16]


def test_a_lock_of_a_node_that_is_gone_says_to_search_again(tmp_path: Path) -> None:
    model = chain("a/Mul_0", "a/Mul_1")
    locked = {"graph": digest_of(tmp_path, model), "nodes": ["a/Mul_0", "gone/Mul_0", "gone/Mul_1"]}
    with pytest.raises(BuildError, match=r"keeps 'gone/Mul_0' and 1 more in FP32.*`sam3-build search toy --precision"):
        typed(tmp_path, model, locked)


def test_a_lock_of_another_graph_is_refused_even_if_its_nodes_are_there(tmp_path: Path) -> None:
    locked = {"graph": digest_of(tmp_path, chain("a/Mul_0", "a/Mul_1")), "nodes": ["a/Mul_0"]}
    with pytest.raises(
        BuildError, match=r"^toy\.fp16: the lock file is of another graph: .*search toy --precision fp16`"
    ):
        typed(tmp_path, chain("a/Mul_0", "a/Mul_1", "a/Mul_2"), locked)


def test_other_weights_leave_a_lock_as_it_is(tmp_path: Path) -> None:
    model = chain("a/Mul_0", "a/Mul_1")
    locked = {"graph": digest_of(tmp_path, model), "nodes": ["a/Mul_0"]}
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float32(3), "two"))
    assert typed(tmp_path, model, locked)["kept"] == {"lock": 1}

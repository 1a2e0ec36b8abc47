"""Trial: the emulation of a graph with some nodes in FP32, measured; nothing but statistics is left."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from planted_overflow import cases, planted

from sam3_build.compare.judge import gates_for, judge
from sam3_build.errors import BuildError
from sam3_build.graph import files
from sam3_build.graph.fingerprint import fingerprint
from sam3_build.spec import Comparison
from sam3_build.stages import trial

PLANTS = {"layers.1.mlp": "overflow", "layers.2.attn": "cancel"}


@pytest.fixture(scope="module")
def component(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, frozenset[str], str]:
    """A planted encoder with its recorded cases; the folder, the planted nodes and the digest of its structure."""
    folder = tmp_path_factory.mktemp("component")
    for name in ("onnx", "reference", "baseline"):
        (folder / name).mkdir()
    model, nodes = planted(3, PLANTS)
    onnx.save(model, folder / "onnx" / "encoder.onnx")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for case, x in cases().items():
        y = session.run(None, {"x": x})[0]
        np.savez(folder / "reference" / f"{case}.npz", **{"inputs/x": x, "outputs/y": y})
        np.savez(folder / "baseline" / f"{case}.npz", y=y)
    return folder, nodes, fingerprint(files.load(folder / "onnx"))


def tried(component, out: Path, keep: frozenset[str], *, precision: str = "fp16", count: int | None = None):
    """Run the stage; return its statistics and facts."""
    folder, _, digest = component
    out.mkdir()
    typed: dict[str, object] = {"component": "encoder", "precision": precision, "require_low": False}
    if keep:
        typed["locked"] = {"graph": digest, "nodes": sorted(keep)}
    measured = {"component": "encoder", "precision": precision, "keep_outputs": False, "rows": 0}
    steps = [
        {"name": "typed", "stage": "precision", "params": typed, "inputs": {"onnx": "onnx"}},
        {
            "name": "measured",
            "stage": "verify",
            "params": measured,
            "inputs": {"onnx": "typed", "reference": "reference", "baseline": "baseline"},
        },
    ]
    params = {"steps": steps, "cases": count}
    inputs = {name: folder / name for name in ("onnx", "reference", "baseline")}
    facts = trial.run(params, inputs, out)
    assert [path.name for path in out.iterdir()] == ["statistics.json"]
    assert [path.name for path in out.parent.iterdir()] == [out.name], "nothing is left beside it"
    return json.loads((out / "statistics.json").read_text()), facts


def failed(statistics) -> set[str]:
    gates = {"y": [gate for gate in gates_for("fp16", "float32", {}) if gate.metric != "rows"]}
    comparison = Comparison("encoder", "a vs b", "fp16", None, "trial", None, ("y",), gates)
    return {row.metric for row in judge(comparison, statistics) if row.verdict == "fail"}


def test_a_trial_shows_what_the_cpu_alone_would_hide(component, tmp_path: Path) -> None:
    statistics, _ = tried(component, tmp_path / "out", frozenset())
    assert "nonfinite" in failed(statistics) and statistics["emulated"]


def test_the_planted_nodes_in_fp32_pass(component, tmp_path: Path) -> None:
    _, nodes, _ = component
    assert failed(tried(component, tmp_path / "out", nodes)[0]) == set()


@pytest.mark.parametrize("left_out", range(4))
def test_each_planted_node_is_needed(component, tmp_path: Path, left_out: int) -> None:
    _, nodes, _ = component
    assert failed(tried(component, tmp_path / "out", nodes - {sorted(nodes)[left_out]})[0]) != set()


def test_with_everything_in_fp32_nothing_differs(component, tmp_path: Path) -> None:
    statistics, _ = tried(component, tmp_path / "out", frozenset(), precision="fp32")
    assert statistics["outputs"]["y"]["max_abs"] == 0 and "emulated" not in statistics


def test_all_matrix_multiplications_may_be_kept_while_searching(component, tmp_path: Path) -> None:
    folder, _, _ = component
    names = frozenset(
        node.name for node in onnx.load(folder / "onnx" / "encoder.onnx").graph.node if "MatMul" in node.name
    )
    _, facts = tried(component, tmp_path / "out", names)
    assert facts["typed"]["kept"]["lock"] == len(names)


def test_fewer_cases_are_the_first_ones(component, tmp_path: Path) -> None:
    statistics, facts = tried(component, tmp_path / "out", frozenset(), count=1)
    assert statistics["cases"] == ["one"] and facts["measured"]["cases"] == 1


def test_a_set_of_another_graph_is_refused(component, tmp_path: Path) -> None:
    folder, nodes, _ = component
    with pytest.raises(BuildError, match="the lock file is of another graph"):
        tried((folder, nodes, "5" * 64), tmp_path / "out", nodes)

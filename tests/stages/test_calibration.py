"""Magnitudes of tensors: those of the whole graph over all cases, each taken before its tensor is let go."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from planted_overflow import cases, planted

from sam3_build.graph import files
from sam3_build.stages._calibration import REDUCTIONS, magnitudes


@pytest.fixture
def recorded(tmp_path: Path) -> list[Path]:
    """Cases of the toy network, of 8 and 64 rows."""
    for name, x in cases().items():
        np.savez(tmp_path / f"{name}.npz", **{"inputs/x": x})
    return sorted(tmp_path.glob("*.npz"))


def test_magnitudes_are_those_of_all_cases_to_the_last_bit(tmp_path: Path, recorded: list[Path]) -> None:
    model, _ = planted(2, {})
    onnx.save(model, tmp_path / "toy.onnx")
    tensors = ["x", *(node.input[0] for node in model.graph.node if node.op_type == "MatMul")]
    found = magnitudes(files.load(tmp_path / "toy.onnx"), tensors, recorded, empty(tmp_path))
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors[1:])
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for name in tensors:
        arrays = [x if name == "x" else session.run([name], {"x": x})[0] for x in cases().values()]
        assert found[name] == max(float(np.abs(array).max()) for array in arrays), name


def test_a_tensor_is_reduced_right_behind_what_computes_it(tmp_path: Path, recorded: list[Path]) -> None:
    """Else all that are measured would be kept until the end of the run."""
    model, _ = planted(2, {})
    onnx.save(model, tmp_path / "toy.onnx")
    tensors = [node.output[0] for node in model.graph.node if node.op_type == "MatMul"]
    folder = empty(tmp_path)
    magnitudes(files.load(tmp_path / "toy.onnx"), tensors, recorded, folder)
    nodes = list(onnx.load(folder / "measured.onnx").graph.node)
    made_at = {output: index for index, node in enumerate(nodes) for output in node.output}
    for name in tensors:
        behind = nodes[made_at[name] + 1 : made_at[name] + 3]
        assert [(node.op_type, list(node.input)) for node in behind] == [(kind, [name]) for kind in REDUCTIONS]


def empty(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"

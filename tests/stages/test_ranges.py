"""Ranges: the largest magnitude that each low node meets, on recorded inputs; and which nodes a rule names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from planted_overflow import cases, planted
from toy_graphs import F, info, n, toy

from sam3_build.errors import BuildError
from sam3_build.graph import files
from sam3_build.graph.fingerprint import fingerprint
from sam3_build.stages import ranges


def measured(tmp_path: Path, model: onnx.ModelProto, *feeds: dict[str, np.ndarray], precision: str = "fp16", **typed):
    """Run the stage; return the file that it wrote and its facts."""
    (tmp_path / "reference").mkdir()
    for index, feed in enumerate(feeds):
        np.savez(tmp_path / "reference" / f"case{index}.npz", **{f"inputs/{k}": v for k, v in feed.items()})
    onnx.save(model, tmp_path / "toy.onnx")
    (tmp_path / "out").mkdir()
    common = {"component": "toy", "precision": precision}
    params = {**common, "cases": typed.pop("cases", None), "typed": {**common, **typed}}
    facts = ranges.run(params, {"onnx": tmp_path / "toy.onnx", "reference": tmp_path / "reference"}, tmp_path / "out")
    return json.loads((tmp_path / "out" / "ranges.json").read_text()), facts


def test_overflowing_nodes_are_seeded_and_they_alone(tmp_path: Path) -> None:
    model, wanted = planted(6, {"layers.1.mlp": "overflow", "layers.4.mlp": "overflow"})
    found, facts = measured(tmp_path, model, *({"x": x} for x in cases().values()))
    assert {node["name"] for node in found["nodes"] if node["beyond"]} == wanted
    assert facts == {"cases": 2, "nodes": len(model.graph.node), "beyond": 4}
    assert [node["name"] for node in found["nodes"]] == [node.name for node in model.graph.node]
    assert found["graph"] == fingerprint(files.load(tmp_path / "toy.onnx"))
    assert found["limit"] == 65504


def test_every_magnitude_is_what_the_whole_graph_computes(tmp_path: Path) -> None:
    model, _ = planted(2, {"layers.1.mlp": "overflow"})
    found, _ = measured(tmp_path, model, *({"x": x} for x in cases().values()))
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    tensors = [name for node in model.graph.node for name in node.output]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    runs = [dict(zip(tensors, session.run(None, {"x": x}), strict=True)) | {"x": x} for x in cases().values()]
    for node, listed in zip(model.graph.node, found["nodes"], strict=True):
        met = [
            np.abs(values).max()
            for run in runs
            for k, values in (run | weights).items()
            if k in (*node.input, *node.output)
        ]
        assert listed["largest"] == pytest.approx(max(met), rel=1e-4), node.name


def test_what_stays_fp32_anyway_is_not_listed(tmp_path: Path) -> None:
    model, _ = planted(3, {})
    found, _ = measured(tmp_path, model, {"x": cases()["one"]}, keep_fp32=["*norm_*"])
    assert not any("norm" in node["name"] for node in found["nodes"])
    assert len(found["nodes"]) == len(model.graph.node) - 6


def test_masks_integers_and_omitted_tensors_run_and_infinities_do_not_count(tmp_path: Path) -> None:
    model = toy(
        [
            n("Where", ["mask", "x", "out"], ["a"], "m/Where_0"),
            n("Split", ["a", "halves"], ["b", "c"], "m/Split_0", axis=1),
            n("Clip", ["b", "", "top"], ["d"], "m/Clip_0"),
            n("Add", ["d", "c"], ["y"], "m/Add_0"),
        ],
        [info("x"), info("mask", onnx.TensorProto.BOOL)],
        [info("y", F, ("batch", 2))],
        {"out": np.float32(-np.inf), "halves": np.array([2, 2]), "top": np.float32(1e6)},
    )
    x, mask = np.full((2, 4), 3, np.float32), np.array([[True] * 4, [True, True, True, False]])
    found, _ = measured(tmp_path, model, {"x": x, "mask": mask})
    largest = {node["name"]: (node["largest"], node["beyond"], node["tensor"]) for node in found["nodes"]}
    assert largest["m/Where_0"][:2] == (3, None)
    assert largest["m/Clip_0"] == (1e6, "overflow", "top")
    assert largest["m/Add_0"][:2] == (6, None)


def test_sizes_that_nodes_compute_may_differ_from_case_to_case(tmp_path: Path) -> None:
    model = toy(
        [
            n("Shape", ["x"], ["shape"], "m/Shape_0"),
            n("Mul", ["shape", "scale"], ["sizes"], "m/Mul_0"),
            n("Resize", ["x", "", "", "sizes"], ["t"], "m/Resize_0", mode="nearest"),
            n("ReduceMax", ["t", "axes"], ["y"], "m/ReduceMax_0", keepdims=0),
        ],
        [info("x", F, ("batch", 1, "h", "w"))],
        [info("y", F, ("batch", 1))],
        {"scale": np.array([1, 1, 2, 2]), "axes": np.array([2, 3])},
    )
    feeds = [{"x": np.full((batch, 1, side, side), batch, np.float32)} for batch, side in ((1, 2), (2, 3))]
    found, _ = measured(tmp_path, model, *feeds)
    assert {node["name"]: node["largest"] for node in found["nodes"]} == {"m/Resize_0": 2, "m/ReduceMax_0": 2}


def test_a_weight_that_becomes_zero_is_seeded(tmp_path: Path) -> None:
    nodes = [n("Add", ["x", "small"], ["t"], "m/Add_0"), n("Div", ["x", "t"], ["y"], "m/Div_0")]
    model = toy(nodes, [info("x")], [info("y")], {"small": np.float32(1e-12)})
    found, _ = measured(tmp_path, model, {"x": np.ones((1, 4), np.float32)})
    (seeded,) = (node for node in found["nodes"] if node["beyond"])
    assert (seeded["name"], seeded["beyond"], seeded["tensor"]) == ("m/Add_0", "vanishing weight", "small")


def test_fewer_cases_can_be_asked_for(tmp_path: Path) -> None:
    model, _ = planted(1, {})
    _, facts = measured(tmp_path, model, *({"x": x} for x in cases().values()), cases=1)
    assert facts["cases"] == 1


def test_a_recipe_that_makes_nothing_low_cannot_be_searched(tmp_path: Path) -> None:
    model, _ = planted(1, {})
    with pytest.raises(
        BuildError, match=r"^toy\.fp32: the recipe puts no node into a lower type, so there is nothing to search for"
    ):
        measured(tmp_path, model, {"x": cases()["one"]}, precision="fp32")


def test_without_a_recorded_case_nothing_is_measured(tmp_path: Path) -> None:
    model, _ = planted(1, {})
    with pytest.raises(BuildError, match="no recorded case runs 'toy'"):
        measured(tmp_path, model)

"""Faults planted into an exported graph: the real verify stage measures them and the default gates fail, each time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sam3_build.compare.judge import Row, gates_for, judge
from sam3_build.errors import BuildError
from sam3_build.spec import Comparison
from sam3_build.stages.verify import STAGE

SHAPE = (3, 8, 8)
GATES = {"fp32": ("max_abs_over_std",), "fp16": ("cosine", "max_abs_over_range", "std_ratio")}


@dataclass
class Graph:
    """Masks are twice the input, valid are those with a positive corner; a fault adds nodes or changes an output."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    masks: tuple[str, int, list[str | int]] = ("sound_masks", TensorProto.FLOAT, ["batch", *SHAPE])
    outputs: tuple[str, ...] = ("masks", "valid")
    valid: str = "sound_valid"

    def add(self, operator: str, inputs: list[str], output: str, **attributes: int) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants[name] = value
        return name

    def save(self, path: Path) -> None:
        self.add("Identity", [self.masks[0]], "masks")
        self.add("Identity", [self.valid], "valid")
        sound = [
            helper.make_node("Add", ["x", "x"], ["sound_masks"]),
            helper.make_node("Gather", ["x", "corner"], ["row"], axis=3),
            helper.make_node("Gather", ["row", "corner"], ["corners"], axis=2),
            helper.make_node("Greater", ["corners", "zero"], ["sound_valid"]),
        ]
        shown = {
            "masks": helper.make_tensor_value_info("masks", *self.masks[1:]),
            "valid": helper.make_tensor_value_info("valid", TensorProto.BOOL, ["batch", SHAPE[0]]),
        }
        self.constants |= {"corner": np.array(0), "zero": np.array(0, np.float32)}
        graph = helper.make_graph(
            [*sound, *self.nodes],
            "toy",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *SHAPE])],
            [shown[name] for name in self.outputs],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        opset = [helper.make_opsetid("", 20)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=10)
        onnx.checker.check_model(model)
        onnx.save(model, path)


def nan_in_one_pixel(graph: Graph) -> None:
    spoiled = np.zeros(SHAPE, np.float32)
    spoiled[1, 2, 3] = np.nan
    graph.masks = (graph.add("Add", ["sound_masks", graph.constant("nan", spoiled)], "spoiled"), *graph.masks[1:])


def infinity_in_one_pixel(graph: Graph) -> None:
    spoiled = np.zeros(SHAPE, np.float32)
    spoiled[0, 0, 0] = np.inf
    graph.masks = (graph.add("Add", ["sound_masks", graph.constant("inf", spoiled)], "spoiled"), *graph.masks[1:])


def masks_shifted_by_a_pixel(graph: Graph) -> None:
    order = graph.constant("order", np.roll(np.arange(SHAPE[2]), 1))
    graph.masks = (graph.add("Gather", ["sound_masks", order], "shifted", axis=3), *graph.masks[1:])


def masks_in_another_order(graph: Graph) -> None:
    order = graph.constant("order", np.array([1, 0, 2]))
    graph.masks = (graph.add("Gather", ["sound_masks", order], "swapped", axis=1), *graph.masks[1:])


def masks_scaled_by_three_percent(graph: Graph) -> None:
    factor = graph.constant("factor", np.array(1.03, np.float32))
    graph.masks = (graph.add("Mul", ["sound_masks", factor], "scaled"), *graph.masks[1:])


def masks_of_zeros(graph: Graph) -> None:
    graph.masks = (graph.add("Mul", ["sound_masks", "zero"], "zeros"), *graph.masks[1:])


def masks_without_sign(graph: Graph) -> None:
    graph.masks = (graph.add("Abs", ["sound_masks"], "unsigned"), *graph.masks[1:])


def one_pixel_far_off(graph: Graph) -> None:
    spike = np.zeros(SHAPE, np.float32)
    spike[2, 7, 7] = 1
    graph.masks = (graph.add("Add", ["sound_masks", graph.constant("spike", spike)], "spiked"), *graph.masks[1:])


def one_flag_flipped(graph: Graph) -> None:
    flip = graph.constant("flip", np.array([False, True, False]))
    graph.valid = graph.add("Xor", ["sound_valid", flip], "flipped")


def masks_of_another_shape(graph: Graph) -> None:
    shape = graph.constant("shape", np.array([0, SHAPE[0], -1]))
    pixels = SHAPE[1] * SHAPE[2]
    graph.masks = (graph.add("Reshape", ["sound_masks", shape], "flat"), TensorProto.FLOAT, ["batch", SHAPE[0], pixels])


def masks_of_another_type(graph: Graph) -> None:
    double = graph.add("Cast", ["sound_masks"], "double", to=TensorProto.DOUBLE)
    graph.masks = (double, TensorProto.DOUBLE, ["batch", *SHAPE])


def row_one_of_a_batch_wrong(graph: Graph) -> None:
    size = graph.add("Shape", ["x"], "size", start=0, end=1)
    count = graph.add("Squeeze", [size], "count")
    rows = graph.add("Range", [graph.constant("from", np.array(0)), count, graph.constant("by", np.array(1))], "rows")
    hit = graph.add("Equal", [rows, graph.constant("one", np.array(1))], "hit")
    error = graph.add("Cast", [hit], "error", to=TensorProto.FLOAT)
    column = graph.add("Reshape", [error, graph.constant("column", np.array([-1, 1, 1, 1]))], "columns")
    graph.masks = (graph.add("Add", ["sound_masks", column], "raised"), *graph.masks[1:])


def every_row_like_the_first(graph: Graph) -> None:
    first = graph.add("Gather", ["sound_masks", graph.constant("first", np.array([0]))], "first_row", axis=0)
    shape = graph.add("Shape", ["sound_masks"], "whole")
    graph.masks = (graph.add("Expand", [first, shape], "expanded"), *graph.masks[1:])


# fault -> output that fails -> metrics that must show it, beside others that may
FAULTS: dict[Callable[[Graph], None], tuple[str, dict[str, set[str]]]] = {
    nan_in_one_pixel: ("masks", {"fp32": {"nonfinite"}, "fp16": {"nonfinite"}}),
    infinity_in_one_pixel: ("masks", {"fp32": {"nonfinite"}, "fp16": {"nonfinite"}}),
    masks_shifted_by_a_pixel: ("masks", {"fp32": {"max_abs_over_std"}, "fp16": {"cosine", "max_abs_over_range"}}),
    masks_in_another_order: ("masks", {"fp32": {"max_abs_over_std"}, "fp16": {"cosine", "max_abs_over_range"}}),
    masks_scaled_by_three_percent: ("masks", {"fp32": {"max_abs_over_std"}, "fp16": {"std_ratio"}}),
    masks_of_zeros: ("masks", {"fp32": {"max_abs_over_std", "rows"}, "fp16": {"cosine", "std_ratio", "rows"}}),
    masks_without_sign: ("masks", {"fp32": {"max_abs_over_std"}, "fp16": {"cosine"}}),
    one_pixel_far_off: ("masks", {"fp32": {"max_abs_over_std"}, "fp16": {"max_abs_over_range"}}),
    one_flag_flipped: ("valid", {"fp32": {"mismatches"}, "fp16": {"mismatches"}}),
    row_one_of_a_batch_wrong: ("masks", {"fp32": {"rows"}, "fp16": {"rows"}}),
    every_row_like_the_first: ("masks", {"fp32": {"rows"}, "fp16": {"rows"}}),
    masks_of_another_shape: ("masks", {"fp32": {"incomparable"}, "fp16": {"incomparable"}}),
    masks_of_another_type: ("masks", {"fp32": {"incomparable"}, "fp16": {"incomparable"}}),
}


def verified(folder: Path, precision: str, graph: Graph) -> tuple[Row, ...]:
    """Run the stage on `graph` (with a sound FP32 run as baseline, for FP16) and judge by the default gates."""
    for name in ("onnx", "reference", "baseline", "out"):
        (folder / name).mkdir()
    rng = np.random.default_rng(3)
    for case, batch in (("scene1", 1), ("together", 2)):
        x = rng.standard_normal((batch, *SHAPE)).astype(np.float32)
        recorded = {"inputs/x": x, "outputs/masks": x + x, "outputs/valid": x[..., 0, 0] > 0}
        np.savez(folder / "reference" / f"{case}.npz", **recorded)
    inputs = {"onnx": folder / "onnx", "reference": folder / "reference"}
    measured = {"component": "decoder", "rows": 3, "row_axes": dict.fromkeys(("x", "masks", "valid"), 0)}
    if precision != "fp32":
        Graph().save(folder / "onnx" / "decoder.fp32.onnx")
        STAGE.run({**measured, "precision": "fp32", "keep_outputs": True}, inputs, folder / "baseline")
        inputs["baseline"] = folder / "baseline"
    graph.save(folder / "onnx" / f"decoder.{precision}.onnx")
    STAGE.run({**measured, "precision": precision, "keep_outputs": False}, inputs, folder / "out")
    statistics = json.loads((folder / "out" / "statistics.json").read_text())
    gates = {"masks": gates_for(precision, "float32", {}), "valid": gates_for(precision, "bool", {})}
    return judge(
        Comparison("decoder", "a vs b", "fp16", None, "verify:decoder", None, ("masks", "valid"), gates), statistics
    )


@pytest.mark.parametrize("precision", GATES)
def test_a_sound_graph_passes_every_gate(tmp_path: Path, precision: str) -> None:
    rows = verified(tmp_path, precision, Graph())
    assert {(row.output, row.metric) for row in rows} == {
        *(("masks", metric) for metric in (*GATES[precision], "rows", "nonfinite", "incomparable")),
        *(("valid", metric) for metric in ("mismatches", "rows", "nonfinite", "incomparable")),
    }
    assert {row.verdict for row in rows} == {"pass"}


@pytest.mark.parametrize("precision", GATES)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_fails_its_output_by_the_metric_that_shows_it_and_no_other_output(
    tmp_path: Path, fault: Callable[[Graph], None], precision: str
) -> None:
    graph = Graph()
    fault(graph)
    rows = verified(tmp_path, precision, graph)
    output, metrics = FAULTS[fault]
    failed = {(row.output, row.metric) for row in rows if row.verdict == "fail"}
    assert {name for name, _ in failed} == {output}
    assert {(output, metric) for metric in metrics[precision]} <= failed
    assert all(row.reason for row in rows if row.verdict == "fail")


@pytest.mark.parametrize("precision", GATES)
@pytest.mark.parametrize("output", ["masks", "valid"])
def test_a_missing_output_is_an_error_that_names_what_was_expected(tmp_path: Path, output: str, precision: str) -> None:
    with pytest.raises(
        BuildError, match=r"the model has the outputs \['(masks|valid)'\], expected \['masks', 'valid'\]"
    ):
        verified(tmp_path, precision, Graph(outputs=tuple({"masks", "valid"} - {output})))


@pytest.mark.parametrize("precision", GATES)
def test_a_wrong_row_is_named_with_its_case_and_place(tmp_path: Path, precision: str) -> None:
    graph = Graph()
    row_one_of_a_batch_wrong(graph)
    (row,) = [row for row in verified(tmp_path, precision, graph) if (row.output, row.metric) == ("masks", "rows")]
    assert re.search(
        r"the rows \[1, 0\] of case 'together', fed together, have \S+ in row 0 at \[\d, \d, \d\] "
        r"where \S+ came in row 1 of the case",
        str(row.reason),
    )

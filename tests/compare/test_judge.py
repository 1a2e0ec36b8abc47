from __future__ import annotations

import math

import numpy as np
import pytest

from sam3_build.compare.judge import Row, Verdict, default_gates, gates_for, holds, judge, outcome
from sam3_build.compare.metrics import SOUND, TENSORS
from sam3_build.compare.statistics import OutputStatistics
from sam3_build.spec import Comparison, Gate, Json


def comparison(gates: dict[str, tuple[Gate, ...]], *, not_run: str | None = None) -> Comparison:
    return Comparison("decoder", "a vs b", "fp16", None, "verify:decoder.fp16", not_run, tuple(gates), gates)


def statistics(**outputs: tuple[np.ndarray, np.ndarray]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for name, (actual, reference) in outputs.items():
        output = OutputStatistics(reference.dtype.name)
        output.add("scene", actual, reference)
        output.batch_invariance.take("scene", (1, 0), actual[[1, 0]], actual[:2], reference[:2])
        found[name] = output.summary()
    return {"outputs": found}


def verdicts(rows: tuple[Row, ...]) -> dict[str, str]:
    return {row.metric: row.verdict for row in rows}


NOISE = np.random.default_rng(0).standard_normal((4, 50)).astype(np.float32)


def test_default_gates_are_the_documented_ones() -> None:
    always = {("nonfinite", 0), ("incomparable", 0)}

    def pairs(precision: str, dtype: str) -> set[tuple[str, object]]:
        return {(gate.metric, gate.threshold) for gate in default_gates(precision, dtype)}

    assert pairs("fp32", "float32") == always | {("max_abs_over_std", 1e-3), ("rows", 2e-4)}
    reduced = always | {("cosine", 0.999), ("max_abs_over_range", 0.02), ("std_ratio", (0.98, 1.02)), ("rows", 0.02)}
    assert pairs("fp16", "float32") == pairs("fp16_safe", "float32") == pairs("fp16_prefix", "float32") == reduced
    bf16 = {("cosine", 0.995), ("max_abs_over_range", 0.16), ("std_ratio", (0.9, 1.1)), ("rows", 0.16)}
    assert pairs("bf16", "float32") == always | bf16
    int8 = {("cosine", 0.99), ("max_abs_over_range", 0.25), ("std_ratio", (0.8, 1.25)), ("rows", 0.25)}
    assert pairs("int8_matmul", "float32") == always | int8
    for precision in ("fp32", "fp16"):
        for dtype in ("bool", "int64", "uint8"):
            assert pairs(precision, dtype) == always | {
                ("mismatches", 0),
                ("rows", 2e-4 if precision == "fp32" else 0.02),
            }


@pytest.mark.parametrize(
    ("gate", "good", "bad"),
    [
        (Gate("max_abs_over_std", 1e-3), (0.0, 1e-3), (1.001e-3, math.inf)),
        (Gate("max_abs_over_range", 0.02), (0.02,), (0.0201,)),
        (Gate("cosine", 0.999, at_least=True), (0.999, 1.0), (0.9989, -1.0)),
        (Gate("std_ratio", (0.98, 1.02)), (0.98, 1.0, 1.02), (0.979, 1.021)),
        (Gate("mismatches", 0), (0,), (1,)),
        (Gate("nonfinite", 0), (0,), (1,)),
    ],
)
def test_every_gate_has_a_side_that_fails(gate: Gate, good: tuple[float, ...], bad: tuple[float, ...]) -> None:
    assert all(holds(gate, value) for value in good)
    assert not any(holds(gate, value) for value in (*bad, math.nan))


def test_equal_outputs_pass_all_gates_without_a_reason() -> None:
    gates = {"masks": gates_for("fp16", "float32", {}), "valid": gates_for("fp16", "bool", {})}
    flags = NOISE > 0
    rows = judge(comparison(gates), statistics(masks=(NOISE, NOISE), valid=(flags, flags)))
    assert {row.verdict for row in rows} == {"pass"}
    assert {row.reason for row in rows} == {None}
    assert [row.output for row in rows] == ["masks"] * 6 + ["valid"] * 4
    assert {(row.component, row.comparison) for row in rows} == {("decoder", "a vs b")}


def test_a_failure_names_the_metric_the_threshold_and_the_place() -> None:
    actual = NOISE.copy()
    actual[2, 7] += 1
    rows = judge(comparison({"masks": gates_for("fp32", "float32", {})}), statistics(masks=(actual, NOISE)))
    row = next(row for row in rows if row.metric == "max_abs_over_std")
    assert (row.verdict, row.threshold) == ("fail", 1e-3)
    assert row.value == pytest.approx(1 / NOISE.std(), rel=1e-5)
    assert row.reason == (
        f"max_abs_over_std is {row.value:.4g}, not <= 0.001: case 'scene' at [2, 7] has "
        f"{float(actual[2, 7]):.6g} where {float(NOISE[2, 7]):.6g} is expected"
    )


def test_a_failure_is_never_shown_rounded_to_the_right_side() -> None:
    rows = judge(
        comparison({"masks": gates_for("fp16", "float32", {})}),
        {"outputs": {"masks": {"metrics": {"cosine": 0.99899999, "std_ratio": 1.0200001}}}},
    )
    reasons = {row.metric: str(row.reason) for row in rows}
    assert reasons["cosine"] == "cosine is 0.99899999, not >= 0.999"
    assert reasons["std_ratio"] == "std_ratio is 1.0200001, not in 0.98..1.02"


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_one_nan_or_inf_fails(precision: str, value: float) -> None:
    actual = NOISE.copy()
    actual[0, 0] = value
    gates = comparison({"masks": gates_for(precision, "float32", {})})
    assert verdicts(judge(gates, statistics(masks=(actual, NOISE))))["nonfinite"] == "fail"
    # A reference with NaN proves nothing either, even when the output has the same one.
    assert verdicts(judge(gates, statistics(masks=(actual, actual))))["nonfinite"] == "fail"


def test_an_output_of_nothing_but_nan_fails_every_metric_that_it_hides() -> None:
    rows = judge(
        comparison({"masks": gates_for("fp16", "float32", {})}), statistics(masks=(np.full_like(NOISE, np.nan), NOISE))
    )
    assert verdicts(rows) == {
        "cosine": "fail",
        "max_abs_over_range": "fail",
        "std_ratio": "fail",
        "rows": "fail",
        "nonfinite": "fail",
        "incomparable": "pass",
    }
    assert rows[0].reason == "cosine was not measured: no finite element"
    assert rows[0].value is None


def test_another_shape_fails_with_both_shapes_in_the_reason() -> None:
    rows = judge(comparison({"masks": gates_for("fp32", "float32", {})}), statistics(masks=(NOISE[:2], NOISE)))
    assert {row.metric: row.reason for row in rows if row.verdict == "fail"} == {
        "rows": "rows was not measured: case 'scene' has float32[2, 50] where float32[4, 50] is expected",
        "max_abs_over_std": "max_abs_over_std was not measured: "
        "case 'scene' has float32[2, 50] where float32[4, 50] is expected",
        "incomparable": "incomparable is 1, not <= 0: case 'scene' has float32[2, 50] where float32[4, 50] is expected",
    }


def test_what_was_expected_and_not_measured_fails() -> None:
    gates = {"masks": gates_for("fp32", "float32", {}), "boxes": gates_for("fp32", "float32", {})}
    rows = judge(comparison(gates), statistics(masks=(NOISE, NOISE)))
    assert [(r.metric, r.verdict, r.reason) for r in rows if r.output == "boxes"] == [
        ("parity", "fail", "the comparison did not measure this output")
    ]
    rows = judge(comparison(gates), None)
    assert {(r.output, r.verdict, r.reason) for r in rows} == {
        (name, "fail", "no statistics: run `doit verify:decoder.fp16`") for name in gates
    }


def test_an_output_that_no_gate_judges_fails() -> None:
    rows = judge(
        comparison({"masks": gates_for("fp32", "float32", {})}), statistics(masks=(NOISE, NOISE), more=(NOISE, NOISE))
    )
    assert [(r.output, r.verdict, r.reason) for r in rows if r.output == "more"] == [
        ("more", "fail", "no gate judges this output")
    ]
    assert verdicts(judge(comparison({"masks": ()}), statistics(masks=(NOISE, NOISE)))) == {"parity": "fail"}


def test_a_metric_that_the_output_does_not_have_fails() -> None:
    flags = NOISE > 0
    rows = judge(comparison({"valid": gates_for("fp16", "bool", {"cosine": 0.5})}), statistics(valid=(flags, flags)))
    row = next(row for row in rows if row.metric == "cosine")
    assert (row.verdict, row.reason) == ("fail", "cosine was not measured: a bool output has no such metric")


def test_what_cannot_run_here_is_not_run_and_never_passes() -> None:
    rows = judge(comparison({"masks": gates_for("fp32", "float32", {})}, not_run="no GPU here"), None)
    assert rows == (Row("decoder", "a vs b", "masks", "parity", None, None, "not_run", "no GPU here"),)


def test_a_tolerance_replaces_its_default_and_leaves_the_others() -> None:
    gates = {g.metric: g.threshold for g in gates_for("fp16", "float32", {"cosine": 0.9, "max_abs_over_std": 0.5})}
    assert gates == {
        "cosine": 0.9,
        "max_abs_over_range": 0.02,
        "std_ratio": (0.98, 1.02),
        "rows": 0.02,
        "nonfinite": 0,
        "incomparable": 0,
        "max_abs_over_std": 0.5,
    }
    assert Gate("cosine", (0.9, 0.95), at_least=True) in gates_for("fp16", "float32", {"cosine": (0.9, 0.95)})
    assert not holds(Gate("cosine", (0.9, 0.95)), 0.99)


def test_no_tolerance_loosens_what_always_holds() -> None:
    gates = gates_for("fp16", "float32", {"nonfinite": 3, "incomparable": 3})
    assert {gate.metric: gate.threshold for gate in gates}.items() >= {"nonfinite": 0, "incomparable": 0}.items()


def test_a_manifest_knows_every_metric_that_is_measured_and_no_other() -> None:
    found = [OutputStatistics(dtype) for dtype in ("float32", "bool")]
    for output in found:
        output.batch_invariance.measured = True
    measured = {metric for output in found for metric in output.metrics()}
    assert measured == {*TENSORS, *SOUND}


def judged_of(*verdicts: tuple[str, str]) -> list[Row]:
    return [Row("decoder", "a vs b", "masks", metric, 0.0, 1.0, verdict, None) for metric, verdict in verdicts]


@pytest.mark.parametrize(
    ("verdicts", "together"),
    [
        (
            [("cosine", Verdict.PASS), ("rows", Verdict.INFO), ("nonfinite", Verdict.PASS)],
            Verdict.PASS,
        ),  # an engine that takes one row at a time
        (
            [
                ("mask_iou", Verdict.INFO),
                ("count", Verdict.INFO),
                ("nonfinite", Verdict.PASS),
                ("incomparable", Verdict.PASS),
            ],
            Verdict.INFO,
        ),  # random weights
        ([("mask_iou", Verdict.INFO), ("nonfinite", Verdict.FAIL)], Verdict.FAIL),
        ([("cosine", Verdict.PASS), ("rows", Verdict.NOT_RUN), ("nonfinite", Verdict.PASS)], Verdict.NOT_RUN),
        ([("nonfinite", Verdict.PASS), ("incomparable", Verdict.PASS)], Verdict.PASS),
    ],
)
def test_what_is_told_takes_nothing_away_and_to_be_finite_alone_passes_nothing(
    verdicts: list[tuple[str, str]], together: str
) -> None:
    assert outcome(judged_of(*verdicts)) == together

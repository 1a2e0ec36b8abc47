from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sam3_build.compare.judge import RANGE_PARITY, Threshold, gates_for
from sam3_build.compare.statistics import OutputStatistics
from sam3_build.errors import BuildError
from sam3_build.plan.comparisons import GAP_METRICS, ONLY_REPORTED
from sam3_build.report.table import Counts, judged, report
from sam3_build.spec import Comparison, Gate, Kind, Plan

DTYPES = {"geometry_features": "float32", "pred_logits": "float32", "geometry_mask": "bool"}
MEASURED = ("max_abs", "cosine", "max_abs_over_std")
NO_GPU = "running TensorRT-RTX engines needs a CUDA GPU; none found on this machine"


def plan(tolerances: dict[str, Threshold] | None = None) -> Plan:
    comparisons = []
    for component in ("geometry_encoder", "decoder"):
        for precision, against in (("fp32", "pytorch fp32"), ("fp16", "onnxruntime fp32")):
            gates = {name: gates_for(precision, dtype, {}) for name, dtype in DTYPES.items()}
            if tolerances and precision == "fp16":
                gates["geometry_features"] = gates_for(precision, "float32", tolerances)
            outputs = tuple(DTYPES)
            action = f"verify:{component}.{precision}"
            label = f"{against} vs onnxruntime {precision}" + (f" ({RANGE_PARITY})" if precision == "fp16" else "")
            comparisons.append(Comparison(component, label, precision, None, action, None, outputs, gates))
            for target in ("ampere", "ada"):
                label = f"onnxruntime fp32 vs {target} {precision}"
                comparisons.append(Comparison(component, label, precision, target, None, NO_GPU, outputs, gates))
    return Plan("sam3_mini", (), tuple(comparisons))


class Results:
    """The outputs of the verify actions, as the store would hand them out."""

    def __init__(self, root: Path, noise: float) -> None:
        self.root = root
        self.asked: list[str] = []
        for action in (c.action for c in plan().comparisons):
            if action:
                self.write(action, noise if action.endswith("fp16") else noise / 1e3)

    def write(self, action: str, noise: float) -> None:
        rng = np.random.default_rng(5)
        outputs = {}
        for name, dtype in DTYPES.items():
            reference = rng.standard_normal((2, 40)).astype(np.float32)
            actual = (reference + noise * rng.standard_normal(reference.shape)).astype(np.float32)
            found = OutputStatistics(dtype)
            found.add("scene1", *((actual, reference) if dtype == "float32" else (reference > 0, reference > 0)))
            row = reference if dtype == "float32" else reference > 0
            found.batch_invariance.take("scene1", (1, 0), row[[1, 0]], row, row)
            outputs[name] = found.summary()
        folder = self.root / action
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "statistics.json").write_text(json.dumps({"outputs": outputs}))

    def __call__(self, action: str) -> Path | None:
        self.asked.append(action)
        return self.root / action if (self.root / action).is_dir() else None


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "store", 1e-3)


def written(what: Plan, results: Results, folder: Path, out: io.StringIO) -> Counts:
    return report(what, judged(what, results), results, folder / "report.json", out)


def reported(results: Results, tmp_path: Path, what: Plan | None = None) -> tuple[Counts, str, list[dict[str, object]]]:
    out = io.StringIO()
    counts = written(what or plan(), results, tmp_path, out)
    return counts, out.getvalue(), json.loads((tmp_path / "report.json").read_text())


def test_good_results_pass_and_engines_that_cannot_run_are_not_run(results: Results, tmp_path: Path) -> None:
    counts, text, rows = reported(results, tmp_path)
    assert counts == Counts(passed=12, failed=0, not_run=24)
    assert text.splitlines()[-1] == "12 passed, 0 failed, 24 not run"
    assert {row["verdict"] for row in rows} == {"pass", "not_run"}
    engines = [row for row in rows if "ada" in str(row["comparison"])]
    assert engines[0] == {
        "component": "geometry_encoder",
        "comparison": "onnxruntime fp32 vs ada fp32",
        "output": "geometry_features",
        "metric": "parity",
        "value": None,
        "threshold": None,
        "verdict": "not_run",
        "reason": NO_GPU,
        "at_least": False,
    }
    assert {row["verdict"] for row in engines} == {"not_run"}


def test_rows_have_exactly_the_promised_fields_and_no_nan(results: Results, tmp_path: Path) -> None:
    (results.root / "verify:decoder.fp16" / "statistics.json").unlink()
    (results.root / "verify:decoder.fp16").rmdir()
    _, _, rows = reported(results, tmp_path)
    fields = ["component", "comparison", "output", "metric", "value", "threshold", "verdict", "reason", "at_least"]
    assert all(list(row) == fields for row in rows)
    assert "NaN" not in (tmp_path / "report.json").read_text()
    assert all((row["reason"] is None) == (row["verdict"] == "pass") for row in rows)
    gate = next(row for row in rows if row["metric"] == "std_ratio")
    assert gate["threshold"] == [0.98, 1.02]


def test_a_failed_gate_fails_its_output_and_says_why(results: Results, tmp_path: Path) -> None:
    results.write("verify:decoder.fp16", 0.5)
    counts, text, rows = reported(results, tmp_path)
    assert counts == Counts(passed=10, failed=2, not_run=24)
    failed = [line for line in text.splitlines() if line.startswith("  FAIL")]
    assert [line.split()[1:3] for line in failed] == [["decoder", "geometry_features"], ["decoder", "pred_logits"]]
    reason = next(row["reason"] for row in rows if row["verdict"] == "fail")
    assert f"- {reason} - " in " ".join(text.split())
    assert counts == written(plan(), results, tmp_path, io.StringIO())


def test_results_that_are_missing_fail(results: Results, tmp_path: Path) -> None:
    (results.root / "verify:decoder.fp32" / "statistics.json").unlink()
    (results.root / "verify:decoder.fp32").rmdir()
    counts, text, _ = reported(results, tmp_path)
    assert counts == Counts(passed=9, failed=3, not_run=24)
    assert "no statistics: run `doit verify:decoder.fp32`" in text


def test_results_that_cannot_be_read_are_an_error(results: Results, tmp_path: Path) -> None:
    (results.root / "verify:decoder.fp32" / "statistics.json").write_text("{")
    with pytest.raises(BuildError, match=r"the output of verify:decoder\.fp32 cannot be read"):
        reported(results, tmp_path)


def test_a_tolerance_changes_the_verdict_of_the_same_statistics(results: Results, tmp_path: Path) -> None:
    results.write("verify:decoder.fp16", 0.05)
    failed = reported(results, tmp_path)[0].failed
    loose: dict[str, Threshold] = {"cosine": 0.9, "max_abs_over_range": 0.5, "std_ratio": (0.5, 2.0)}
    counts, text, _ = reported(results, tmp_path, plan(loose))
    assert (failed, counts.failed) == (2, 1)
    assert ">= 0.9 " in text  # a threshold that is not the usual one stands beside its value


def test_the_file_is_written_only_when_it_changes(results: Results, tmp_path: Path) -> None:
    reported(results, tmp_path)
    before = (tmp_path / "report.json").stat()
    reported(results, tmp_path)
    assert (tmp_path / "report.json").stat() == before
    results.write("verify:decoder.fp16", 0.5)
    reported(results, tmp_path)
    assert (tmp_path / "report.json").stat().st_mtime_ns != before.st_mtime_ns
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.json", "store"]


def test_the_table_fits_100_columns(results: Results, tmp_path: Path) -> None:
    results.write("verify:decoder.fp16", 0.5)
    _, text, _ = reported(results, tmp_path, plan({"cosine": 0.9}))
    assert max(map(len, text.splitlines())) <= 100
    assert "\x1b" not in text


def test_only_the_actions_of_the_plan_are_read(results: Results, tmp_path: Path) -> None:
    reported(results, tmp_path)
    assert results.asked == [c.action for c in plan().comparisons if c.action]


def test_what_a_cpu_shows_of_fp16_is_called_range_parity_and_explained(results: Results, tmp_path: Path) -> None:
    _, text, rows = reported(results, tmp_path)
    measured = {row["comparison"] for row in rows if row["verdict"] == "pass"}
    assert measured == {
        "pytorch fp32 vs onnxruntime fp32",
        "onnxruntime fp32 vs onnxruntime fp16 (range parity)",
    }
    assert text.count("range parity: ONNX Runtime's CPU computes low types in FP32") == 1
    fp32 = replace(plan(), comparisons=tuple(c for c in plan().comparisons if "fp16" not in c.label))
    assert "range parity" not in reported(results, tmp_path, fp32)[1]


def test_what_ran_and_passed_is_said_first_then_what_did_not_run(results: Results, tmp_path: Path) -> None:
    text = reported(results, tmp_path)[1]
    assert text.index("run and passed: graphs fp32, fp16 on ONNX Runtime\n") < text.index("not run: ")
    measured = {c.name: c.action for c in plan().comparisons if c.target is None}
    runs = tuple(
        replace(c, action=measured[c.name.removesuffix(".ada")], not_run=None) if c.target == "ada" else c
        for c in plan().comparisons
    )
    text = reported(results, tmp_path, replace(plan(), comparisons=runs))[1]
    assert "run and passed: engines ada fp32, fp16; graphs fp32, fp16 on ONNX Runtime\n" in text


def test_a_side_of_which_anything_fails_is_not_said_to_have_passed(results: Results, tmp_path: Path) -> None:
    results.write(next(c.action for c in plan().comparisons if c.action and c.precision == "fp16"), 1.0)
    text = reported(results, tmp_path)[1]
    assert "run and passed: graphs fp32 on ONNX Runtime\n" in text


GAP = "reference_gap:decoder.hf"
GAP_LABEL = "text-only prompts fed as transformers does instead of as Meta's code does"


def with_gap(results: Results, noise: float) -> Plan:
    """The plan, with a reference gap that was measured."""
    results.write(GAP, noise)
    floats = (Gate("max_abs_over_std", 1e-3), Gate("cosine", 1.0))
    gates = {name: floats if dtype == "float32" else (Gate("mismatches", 0),) for name, dtype in DTYPES.items()}
    gap = Comparison(
        "decoder", GAP_LABEL, "fp32", None, GAP, None, tuple(DTYPES), gates, Kind.GAP,
        informs=dict.fromkeys(GAP_METRICS, ONLY_REPORTED), suffix="@hf",
    )  # fmt: skip
    return replace(plan(), comparisons=(*plan().comparisons, gap))


def test_a_reference_gap_however_large_counts_for_information_alone(results: Results, tmp_path: Path) -> None:
    before = written(plan(), results, tmp_path, io.StringIO())
    out = io.StringIO()
    counts = written(with_gap(results, 1e6), results, tmp_path, out)
    assert counts == replace(before, info=before.info + len(DTYPES))
    assert f"{GAP_LABEL}\n" in out.getvalue()
    assert out.getvalue().endswith(f", {counts.info} for information\n")


def test_a_reference_gap_is_in_the_report_as_information_with_its_reason(results: Results, tmp_path: Path) -> None:
    written(with_gap(results, 0.5), results, tmp_path, io.StringIO())
    rows = [row for row in json.loads((tmp_path / "report.json").read_bytes()) if row["comparison"] == GAP_LABEL]
    assert {(row["output"], row["metric"]) for row in rows} == {
        *((output, metric) for output in ("geometry_features", "pred_logits") for metric in GAP_METRICS[:2]),
        ("geometry_mask", "mismatches"),
    }
    assert {(row["component"], row["verdict"], row["reason"]) for row in rows} == {("decoder", "info", ONLY_REPORTED)}
    assert all(row["value"] is not None for row in rows)

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from sam3_build.compare.judge import Row, Verdict, default_gates, judge, outcome
from sam3_build.compare.statistics import OutputStatistics
from sam3_build.errors import BuildError
from sam3_build.execution.session import open_session
from sam3_build.spec import Comparison, Json
from sam3_build.stages.verify import STAGE, _add


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A component that doubles x and tells which elements are positive, and two recorded cases of it."""
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["x", "x"], ["twice"], name="layer/Add_0"),
            helper.make_node("Greater", ["x", "zero"], ["positive"], name="layer/Greater_0"),
        ],
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [
            helper.make_tensor_value_info("twice", TensorProto.FLOAT, ["batch", 3]),
            helper.make_tensor_value_info("positive", TensorProto.BOOL, ["batch", 3]),
        ],
        [helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    for name in ("onnx", "reference", "out", "baseline"):
        (tmp_path / name).mkdir()
    for precision in ("fp32", "fp16"):
        onnx.save(model, tmp_path / "onnx" / f"decoder.{precision}.onnx")
    rng = np.random.default_rng(1)
    for case, batch in (("scene1", 1), ("together", 2)):
        record(tmp_path, case, rng.standard_normal((batch, 3)).astype(np.float32))
    return tmp_path


def record(folder: Path, case: str, x: np.ndarray, **changes: np.ndarray) -> None:
    arrays = {"inputs/x": x, "outputs/twice": x + x, "outputs/positive": x > 0}
    np.savez(folder / "reference" / f"{case}.npz", **(arrays | {k.replace("_", "/"): v for k, v in changes.items()}))


def verify(folder: Path, *, keep: bool = False, baseline: bool = False) -> tuple[Mapping[str, Json], dict[str, Json]]:
    inputs = {"onnx": folder / "onnx", "reference": folder / "reference"}
    if baseline:
        inputs["baseline"] = folder / "baseline"
    params: dict[str, Json] = {
        "component": "decoder",
        "precision": "fp16" if baseline else "fp32",
        "keep_outputs": keep,
        "rows": 3,
        "row_axes": dict.fromkeys(("x", "twice", "positive"), 0),
    }
    facts = STAGE.run(params, inputs, folder / "out")
    return facts, json.loads((folder / "out" / "statistics.json").read_text())


def test_equal_outputs_over_all_cases(folder: Path) -> None:
    facts, statistics = verify(folder)
    assert facts == {"cases": 2, "outputs": 2}
    assert statistics["cases"] == ["scene1", "together"]
    twice, positive = statistics["outputs"]["twice"], statistics["outputs"]["positive"]
    assert (twice["cases"], twice["elements"], twice["max_abs"]) == (2, 9, 0)
    assert [twice["metrics"][name] for name in ("std_ratio", "cosine")] == pytest.approx([1, 1])
    assert positive["metrics"] == {"mismatches": 0, "nonfinite": 0, "incomparable": 0, "rows": 0}
    assert [f.name for f in (folder / "out").iterdir()] == ["statistics.json"]


def test_a_difference_in_one_case_is_measured_and_located(folder: Path) -> None:
    x = np.array([[1, 2, 3], [4, 5, -6]], np.float32)
    wrong, flags = x + x, x > 0
    wrong[1, 2] += 1
    flags[0, 1] = False
    record(folder, "together", x, outputs_twice=wrong, outputs_positive=flags)
    _, statistics = verify(folder)
    assert statistics["outputs"]["twice"]["max_abs"] == 1
    assert statistics["outputs"]["twice"]["worst"] == {
        "case": "together",
        "index": [1, 2],
        "actual": -12.0,
        "reference": -11.0,
    }
    assert statistics["outputs"]["positive"]["metrics"]["mismatches"] == 1
    everything = np.concatenate([np.load(folder / "reference" / "scene1.npz")["outputs/twice"].ravel(), wrong.ravel()])
    assert statistics["outputs"]["twice"]["metrics"]["max_abs_over_std"] == pytest.approx(
        1 / everything.std(), rel=1e-6
    )


def test_kept_outputs_are_the_baseline_of_the_next_precision(folder: Path) -> None:
    verify(folder, keep=True)
    kept = folder / "out"
    with np.load(kept / "together.npz") as arrays:
        assert sorted(arrays.files) == ["positive", "twice"]
        x = np.load(folder / "reference" / "together.npz")["inputs/x"]
        np.testing.assert_array_equal(arrays["twice"], x + x)
    (folder / "baseline").rmdir()
    kept.rename(folder / "baseline")
    (folder / "out").mkdir()
    # What PyTorch recorded must play no part when there is a baseline.
    for case in ("scene1", "together"):
        x = np.load(folder / "reference" / f"{case}.npz")["inputs/x"]
        record(folder, case, x, outputs_twice=x * 100)
    _, statistics = verify(folder, baseline=True)
    assert statistics["precision"] == "fp16"
    assert statistics["outputs"]["twice"]["max_abs"] == 0
    assert [f.name for f in (folder / "out").iterdir()] == ["statistics.json"]


def test_output_files_are_the_same_bytes_each_time(folder: Path) -> None:
    verify(folder, keep=True)
    first = {f.name: f.read_bytes() for f in (folder / "out").iterdir()}
    assert sorted(first) == ["scene1.npz", "statistics.json", "together.npz"]
    for f in (folder / "out").iterdir():
        f.unlink()
    verify(folder, keep=True)
    assert {f.name: f.read_bytes() for f in (folder / "out").iterdir()} == first


def test_a_component_that_no_case_runs_is_an_error(folder: Path) -> None:
    for case in (folder / "reference").iterdir():
        case.unlink()
    with pytest.raises(BuildError, match="no recorded case runs 'decoder', so there is nothing to run it on"):
        verify(folder)


def test_a_recorded_output_of_another_shape_or_dtype_is_a_failing_statistic(folder: Path) -> None:
    x = np.ones((2, 3), np.float32)
    record(folder, "together", x, outputs_twice=np.ones((2, 4), np.float32), outputs_positive=np.ones((2, 3), np.int64))
    _, statistics = verify(folder)
    for output in ("twice", "positive"):
        assert statistics["outputs"][output]["metrics"]["incomparable"] == 1
        assert "case 'together' has" in statistics["outputs"][output]["problems"][0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs_x": np.ones((2, 3))}, "input 'x' is float64[2, 3], the model takes float32"),
        (
            {"inputs_x": np.ones((2, 4), np.float32)},
            "input 'x' is float32[2, 4], the model takes float32[batch, 3]",
        ),
        ({"inputs_x": np.ones(3, np.float32)}, "input 'x' is float32[3], the model takes float32[batch, 3]"),
        ({"inputs_y": np.ones(3, np.float32)}, "there is no input 'y'; known: x"),
        (
            {"outputs_more": np.ones(3)},
            "the model has the outputs ['positive', 'twice'], expected ['more', 'positive', 'twice']",
        ),
    ],
)
def test_a_record_that_does_not_fit_the_onnx_is_an_error(
    folder: Path, changes: dict[str, np.ndarray], message: str
) -> None:
    record(folder, "together", np.ones((2, 3), np.float32), **changes)
    with pytest.raises(BuildError) as error:
        verify(folder)
    assert message in str(error.value)
    assert "together" in str(error.value)


def test_a_baseline_that_lacks_a_case_is_an_error(folder: Path) -> None:
    np.savez(folder / "baseline" / "scene1.npz", twice=np.ones(3), positive=np.ones(3))
    with pytest.raises(BuildError, match="case 'together' is missing from the outputs to compare with"):
        verify(folder, baseline=True)


def test_what_onnx_runtime_refuses_is_quoted(folder: Path) -> None:
    (folder / "onnx" / "decoder.fp32.onnx").write_bytes(b"junk")
    with pytest.raises(BuildError, match=r"decoder\.fp32\.onnx: ONNX Runtime cannot open it: "):
        verify(folder)


def test_an_onnx_that_computes_nan_fails_the_statistics(folder: Path) -> None:
    x = np.array([[np.nan, 1, 2]], np.float32)
    record(folder, "scene1", x, outputs_twice=np.ones((1, 3), np.float32), outputs_positive=x > 0)
    _, statistics = verify(folder)
    assert statistics["outputs"]["twice"]["metrics"]["nonfinite"] == 1


# ------------------------------------------------------------------ what a backend built


def verify_built(folder: Path, backend: str, **options: Json) -> dict[str, Json]:
    """Run what a backend built for fp16, against the outputs of the FP32 graph."""
    verify(folder, keep=True)
    for kept in (folder / "out").glob("*.npz"):
        kept.rename(folder / "baseline" / kept.name)
    (folder / "built").mkdir()
    inputs = {name: folder / name for name in ("onnx", "reference", "baseline", "built")}
    params: dict[str, Json] = {"component": "decoder", "precision": "fp16", "keep_outputs": False, "rows": 3}
    params |= {"row_axes": dict.fromkeys(("x", "twice", "positive"), 0)}
    STAGE.run({**params, "backend": backend, "options": options}, inputs, folder / "out")
    found: dict[str, Json] = json.loads((folder / "out" / "statistics.json").read_text())
    return found


def test_what_a_backend_built_is_run_by_its_own_runner(folder: Path) -> None:
    statistics = verify_built(folder, "onnxruntime", provider="cpu")
    assert statistics["precision"] == "fp16" and statistics["cases"] == ["scene1", "together"]
    assert statistics["outputs"]["twice"]["max_abs"] == 0


def test_a_runner_that_cannot_do_what_was_asked_is_an_error_and_never_a_pass(folder: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(BuildError, match=r"this ONNX Runtime has no CUDAExecutionProvider, only .*onnxruntime-gpu"):
        verify_built(folder, "onnxruntime", provider="cuda")


@pytest.mark.gpu
def test_onnx_runtime_with_cuda_agrees_with_its_cpu(folder: Path) -> None:
    statistics = verify_built(folder, "onnxruntime", provider="cuda")
    assert statistics["outputs"]["twice"]["metrics"]["max_abs_over_std"] < 1e-5


def only_meaningful(logits: list[float], wrong_row: int | None = None) -> tuple[Row, ...]:
    """Return the verdicts on `twice`, whose rows mean something where `seen` is positive; the others are -1024."""
    rows = len(logits)
    seen = np.array(logits, np.float32)[:, None]
    x = np.arange(3 * rows, dtype=np.float32).reshape(rows, 3) - 4
    twice = np.where(seen > 0, x + x, -1024).astype(np.float32)
    made = {"twice": twice.copy(), "seen": seen}
    if wrong_row is not None:
        made["twice"][wrong_row] = np.flip(made["twice"][wrong_row]) + 1
    statistics = dict[str, OutputStatistics]()
    where = {"twice": "seen"}
    _add(statistics, "scene1", made, {"twice": twice, "seen": seen}, where, {})
    outputs: dict[str, Json] = {name: found.summary(None, where.get(name, "")) for name, found in statistics.items()}
    gates = {"twice": tuple(g for g in default_gates("fp16", "float32") if g.metric != "rows")}
    comparison = Comparison("decoder", "a vs b", "fp16", None, "verify:decoder.fp16", None, ("twice",), gates)
    return judge(comparison, {"outputs": {"twice": outputs["twice"]}})


def test_a_wrong_row_fails_though_rows_of_hidden_objects_agree() -> None:
    assert {row.verdict for row in only_meaningful([-2, 3, -1, -5])} == {Verdict.PASS}
    found = {row.metric: row for row in only_meaningful([-2, 3, -1, -5], wrong_row=1)}
    assert found["cosine"].verdict == found["max_abs_over_range"].verdict == Verdict.FAIL
    # The place is that of the case, hidden rows counted.
    assert ": case 'scene1' at [1, " in str(found["max_abs_over_range"].reason)


def test_hidden_objects_alone_are_not_run_rather_than_passed() -> None:
    rows = only_meaningful([-2, -3])
    assert outcome(rows) == Verdict.NOT_RUN
    why = "seen is positive in none of the 2 rows, so that they mean nothing"
    assert {row.reason for row in rows if row.metric == "cosine"} == {why}


def test_nan_in_a_hidden_row_is_found() -> None:
    twice, seen = np.full((2, 3), -1024, np.float32), np.array([[1], [-1]], np.float32)
    broken = twice.copy()
    broken[1, 2] = np.nan
    statistics = dict[str, OutputStatistics]()
    _add(statistics, "scene1", {"twice": broken, "seen": seen}, {"twice": twice, "seen": seen}, {"twice": "seen"}, {})
    assert statistics["twice"].metrics()["nonfinite"] == 1


def chosen(expected: list[list[float]], actual: list[list[float]], takes: list[int] | None = None) -> tuple[Row, ...]:
    """Return the verdicts on `mask`, of each row that of three candidates which has the largest of `scores`.

    takes: what the side that is compared takes in fact
    """
    x = np.random.default_rng(0).normal(size=(len(expected), 3, 40)).astype(np.float32)
    sides = []
    for scores, own in ((np.array(actual, np.float32), takes), (np.array(expected, np.float32), None)):
        which = scores.argmax(1) if own is None else own
        sides.append({"mask": x[np.arange(len(x)), which], "scores": scores})
    statistics = dict[str, OutputStatistics]()
    _add(statistics, "scene1", sides[0], sides[1], {}, {"mask": "scores"})
    gates = {
        name: tuple(g for g in default_gates("fp16", "float32") if g.metric != "rows") for name in ("mask", "scores")
    }
    comparison = Comparison("decoder", "a vs b", "fp16", None, "verify:decoder.fp16", None, tuple(gates), gates)
    return judge(comparison, {"outputs": {name: found.summary() for name, found in statistics.items()}})


FAR, NEAR, NEARER = [0.9, 0.5, 0.1], [0.1, 0.898, 0.897], [0.1, 0.896, 0.898]


def test_a_near_tie_is_not_compared_and_reported() -> None:
    rows = chosen([FAR, NEAR], [FAR, NEARER])
    assert outcome(rows) == Verdict.PASS
    ((place, why),) = [(row.output, row.reason) for row in rows if row.verdict == Verdict.INFO]
    takes = "row 1 takes mask 2 where mask 1 is expected (scores 0.1000, 0.8980, 0.8970)"
    assert (place, why) == ("scene1", f"not compared, since the two nearly tie: {takes}")


def test_a_near_tie_alone_is_not_run_rather_than_passed() -> None:
    rows = [row for row in chosen([NEAR], [NEARER]) if row.output == "mask" and row.metric == "cosine"]
    why = "no row is compared: in 1 of 1 another one is taken that nearly ties"
    assert [(row.verdict, row.reason) for row in rows] == [(Verdict.NOT_RUN, why)]


@pytest.mark.parametrize(
    ("actual", "takes"),
    [
        ([FAR, [0.9, 0.5, 0.1]], None),  # another one by far
        ([FAR, NEAR], [0, 2]),  # another one than its own scores say
        ([FAR, NEARER], [1, 2]),  # a tie in one row, and a wrong mask in another
        ([[0.5, 0.9, 0.1], NEARER], None),  # another one by far in one row, and a tie in another
    ],
)
def test_a_wrong_choice_fails(actual: list[list[float]], takes: list[int] | None) -> None:
    rows = chosen([FAR, NEAR], actual, takes)
    assert {"cosine", "max_abs_over_range"} <= {
        row.metric for row in rows if row.verdict == Verdict.FAIL and row.output == "mask"
    }


def test_a_tie_excuses_no_scores() -> None:
    """Another candidate that ties in the reference is taken, by scores that are wrong."""
    rows = chosen([FAR, NEAR], [FAR, [0.1, 0.5, 0.9]])
    assert {row.output for row in rows if row.verdict == Verdict.FAIL} == {"scores"}


def test_of_equal_scores_any_may_be_taken_if_all_of_them_tie() -> None:
    """Low types round several scores to one, and runtimes take the first or the last of these."""
    rounded = [0.1, 0.8975, 0.8975]
    for takes in (1, 2):
        assert outcome(chosen([FAR, NEAR], [FAR, rounded], [0, takes])) == Verdict.PASS
    far = chosen([FAR, NEAR], [FAR, [0.8975, 0.8975, 0.8975]], [0, 0])
    assert Verdict.FAIL in {row.verdict for row in far if row.output == "mask"}


def test_plans_say_which_rows_of_a_tracker_mean_something() -> None:
    session = open_session(Path(__file__).parents[2], "sam2_mini_deepstream", {})
    params = session.plan.action("verify:mask_decoder.fp16").params
    assert params["meaningful_where"] == dict.fromkeys(("obj_ptr", "mask_for_mem", "pred_mask"), "occ_logit")
    assert "chosen_by" not in params, "DeepStream's decoder has no output that would say so"
    assert "meaningful_where" not in session.plan.action("verify:memory_attention.fp16").params
    params = open_session(Path(__file__).parents[2], "sam2_mini", {}).plan.action("verify:mask_decoder.fp16").params
    of_mask = ("pred_masks", "iou_scores", "object_pointer", "high_res_masks")
    assert params["chosen_by"] == dict.fromkeys(of_mask, "choice_scores")


def test_the_stage_leaves_near_ties_out_by_the_output_that_the_plan_names(folder: Path) -> None:
    """`twice` stands for scores here and `positive` for what is chosen by them."""
    x = np.array([[0.4, 0.45, 0.1], [0.4, 0.1, 0.3]], np.float32)
    reference = x + x
    reference[0] = 0.905, 0.9, 0.2
    record(folder, "together", x, outputs_twice=reference, outputs_positive=np.array([[False] * 3, [True] * 3]))
    params: dict[str, Json] = {"component": "decoder", "precision": "fp32", "keep_outputs": False, "rows": 0}
    params["chosen_by"] = {"positive": "twice"}
    STAGE.run(params, {"onnx": folder / "onnx", "reference": folder / "reference"}, folder / "out")
    found = json.loads((folder / "out" / "statistics.json").read_text())["outputs"]
    assert (found["positive"]["metrics"]["mismatches"], found["positive"]["left_out"]) == (0, 1)
    takes = "row 0 takes mask 1 where mask 0 is expected (scores 0.9050, 0.9000, 0.2000)"
    assert found["twice"]["ties"] == {"together": f"not compared, since the two nearly tie: {takes}"}

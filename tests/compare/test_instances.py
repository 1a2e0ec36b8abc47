"""Pairing, metrics, gates and reasons of the task, on instances made by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from sam3_build.compare.judge import Row, Verdict, judge, result_gates
from sam3_build.digest import DigestCache
from sam3_build.pipeline.instances import Instances
from sam3_build.pipeline.ious import box_ious, mask_ious
from sam3_build.results.instances.result import RESULT
from sam3_build.results.instances.statistics import NEAR, InstanceStatistics, PictureRow, paired
from sam3_build.spec import PIPELINE, Comparison, Gate, Kind

SIZE = (40, 60)
HERE = PictureRow("sample0", 0, 0)


EXACT = {metric.name: metric.exact for metric in RESULT.metrics}
REDUCED = {metric.name: metric.reduced for metric in RESULT.metrics}
INSTANCES = RESULT.output


def found(*boxes: tuple[int, int, int, int], scores: tuple[float, ...] = (), presence: float = 0.9) -> Instances:
    """Instances whose masks fill their boxes."""
    masks = np.zeros((len(boxes), *SIZE), np.bool_)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return Instances(
        np.array(scores or [0.9] * len(boxes), np.float32),
        np.array(boxes, np.float32).reshape(-1, 4),
        masks,
        np.arange(len(boxes)) * 3,
        presence,
    )


A, B, C = (2, 2, 12, 12), (20, 5, 40, 25), (45, 30, 58, 38)


def measured(*pictures: tuple[Instances, Instances], threshold: float = 0.5) -> InstanceStatistics:
    statistics = InstanceStatistics(threshold)
    for i, (expected, actual) in enumerate(pictures):
        statistics.add(PictureRow(f"sample{i}", 0, i), expected, actual)
    return statistics


def judged(statistics: InstanceStatistics, precision: str = "fp16") -> dict[str, Row]:
    comparison = Comparison(
        PIPELINE,
        "a vs b",
        precision,
        None,
        "segment",
        None,
        (INSTANCES,),
        {INSTANCES: result_gates(RESULT, precision, {})},
        kind=Kind.RESULT,
        result=RESULT.name,
    )
    written = json.loads(json.dumps({"outputs": {INSTANCES: statistics.summary()}}, allow_nan=False))
    return {row.metric: row for row in judge(comparison, written)}


def failed(statistics: InstanceStatistics, precision: str = "fp16") -> dict[str, str | None]:
    return {metric: row.reason for metric, row in judged(statistics, precision).items() if row.verdict == Verdict.FAIL}


# ------------------------------------------------------------------ pairing


def test_ious_are_those_of_counted_pixels() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((3, *SIZE)) < 0.4, rng.random((5, *SIZE)) < 0.5
    expected = [[(x & y).sum() / (x | y).sum() for y in b] for x in a]
    np.testing.assert_allclose(mask_ious(a, b), expected)
    assert mask_ious(a[:0], b).shape == (0, 5)


def test_ious_of_large_masks_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that are shorter than the masks add up to the same."""
    monkeypatch.setattr("sam3_build.pipeline.ious.CHUNK", 7)
    rng = np.random.default_rng(1)
    a, b = rng.random((2, *SIZE)) < 0.4, rng.random((2, *SIZE)) < 0.5
    np.testing.assert_allclose(mask_ious(a, b), [[(x & y).sum() / (x | y).sum() for y in b] for x in a])


def test_two_empty_masks_have_no_iou_and_two_equal_boxes_without_area_are_equal() -> None:
    empty = np.zeros((1, *SIZE), np.bool_)
    assert mask_ious(empty, empty) == [[0]]
    line = np.array([[3, 4, 3, 9]], np.float32)
    assert box_ious(line, line) == [[1]]
    assert box_ious(line, line + 1) == [[0]]


def test_box_iou_by_hand() -> None:
    a = np.array([[0, 0, 10, 10]], np.float32)
    b = np.array([[5, 0, 15, 10], [0, 0, 10, 5], [20, 20, 30, 30], [10, 0, 20, 10]], np.float32)
    np.testing.assert_allclose(box_ious(a, b), [[50 / 150, 0.5, 0, 0]])


def test_order_does_not_matter() -> None:
    for order in permutations((A, B, C)):
        pairs = paired(found(A, B, C), found(*order))
        assert [(p.expected, order[p.actual]) for p in pairs] == [(0, A), (1, B), (2, C)]
        assert all((p.mask_iou, p.box_iou, p.score) == (1, 1, 0) for p in pairs)


def test_the_sum_of_ious_counts_and_not_the_first_come() -> None:
    """Greedily, the first of these would take the partner that the second cannot do without."""
    expected, actual = found((0, 0, 10, 10), (4, 0, 10, 10)), found((2, 0, 10, 10), (0, 0, 6, 10))
    assert {(p.expected, p.actual) for p in paired(expected, actual)} == {(0, 1), (1, 0)}


def test_equal_masks_are_told_apart_by_their_scores() -> None:
    pairs = paired(found(A, A, scores=(0.9, 0.6)), found(A, A, scores=(0.61, 0.89)))
    assert {(p.expected, p.actual) for p in pairs} == {(0, 1), (1, 0)}


def test_no_overlap_no_pair() -> None:
    assert paired(found(A), found(B)) == ()


# ------------------------------------------------------------------ verdicts


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_what_agrees_passes_every_gate_and_all_are_judged(precision: str) -> None:
    same = found(A, B, C, scores=(0.9, 0.7, 0.6))
    rows = judged(measured((same, found(C, A, B, scores=(0.6, 0.9, 0.7))), (found(), found())), precision)
    assert set(rows) == {*EXACT, "nonfinite", "incomparable"}
    assert {row.verdict for row in rows.values()} == {Verdict.PASS}


def test_default_gates_are_the_documented_ones() -> None:
    assert REDUCED == {"count": 0, "mask_iou": 0.98, "box_iou": 0.98, "score": 0.02, "presence": 0}
    assert EXACT == {"count": 0, "mask_iou": 0.999, "box_iou": 0.999, "score": 1e-3, "presence": 0}
    assert set(result_gates(RESULT, "fp16", {"mask_iou": 0.5, "nonfinite": 9})) == {
        *(Gate(m, limit, at_least=m.endswith("_iou")) for m, limit in (REDUCED | {"mask_iou": 0.5}).items()),
        Gate("nonfinite", 0),
        Gate("incomparable", 0),
    }, "a tolerance replaces a gate, and none lets NaN pass"
    assert REDUCED["score"] == NEAR, "what is told of an instance near the threshold is what the gate lets pass"


def test_the_gates_are_in_no_key_of_what_they_judge() -> None:
    keyed = DigestCache(Path("/nonexistent")).recipe(("stages.compare", "stages.verify", "results.instances.result"))
    assert {"results.instances.statistics", "pipeline.ious", "compare.statistics"} <= keyed.keys()
    assert not {"compare.metrics", "compare.judge"} & keyed.keys()


def test_an_instance_lost_is_named_with_sample_query_box_and_score() -> None:
    statistics = measured((found(A, B, C), found(A, C)))
    assert failed(statistics) == {
        "count": "count is 1, not <= 0: instance 1 of sample0 (query 3, box 20,5,40,25, score 0.9000) is lost"
    }


def test_one_lost_and_one_new_is_two_and_not_none() -> None:
    reason = failed(measured((found(A), found(C))))["count"]
    assert reason is not None and reason.startswith("count is 2, not <= 0: instance 0 of sample0")
    assert "is lost; instance 0 of sample0 (query 0, box 45,30,58,38, score 0.9000) is new" in reason


def test_a_score_near_the_threshold_still_fails_and_the_reason_says_so() -> None:
    reason = failed(measured((found(A, B, scores=(0.9, 0.51)), found(A))))["count"]
    assert reason is not None and reason.endswith("is lost: its score is within 0.02 of the threshold, 0.5")


def test_many_that_are_lost_are_counted_and_three_of_them_named() -> None:
    reason = failed(measured((found(A, A, B, B, C), found())))["count"]
    assert reason is not None and reason.startswith("count is 5, ") and reason.endswith("; and 2 more")


def test_a_case_and_row_are_named_where_the_case_is_not_the_sample() -> None:
    statistics = InstanceStatistics(0.5)
    statistics.add(PictureRow("batch", 1, 2), found(A), found())
    assert "instance 0 of sample2 (case 'batch', row 1) (query 0," in str(failed(statistics)["count"])


def test_the_worst_pair_of_all_pictures_counts_and_is_named() -> None:
    moved = (20, 5, 40, 24)
    statistics = measured((found(A, B), found(A, moved)), (found(A), found(A)))
    assert statistics.metrics()["mask_iou"] == statistics.metrics()["box_iou"] == 0.95
    reasons = failed(statistics)
    assert set(reasons) == {"mask_iou", "box_iou"}
    assert str(reasons["mask_iou"]).startswith("mask_iou is 0.95, not >= 0.98: instance 1 of sample0 (query 3, box 20,")


def test_a_score_that_moves_fails_and_both_values_are_said() -> None:
    reasons = failed(measured((found(A, scores=(0.93,)), found(A, scores=(0.905,)))))
    assert set(reasons) == {"score"}
    assert str(reasons["score"]).endswith("(query 0, box 2,2,12,12, score 0.9300) has 0.9050")


def test_presence_that_flips_fails_even_where_nothing_is_found_on_either_side() -> None:
    statistics = measured((found(A), found(A)), (found(presence=0.7), found(presence=0.3)))
    reason = "sample1 has 0.3 where 0.7 is expected, on the other side of 0.5"
    assert failed(statistics) == {"presence": f"presence is 1, not <= 0: {reason}"}
    assert [picture["presence"]["agrees"] for picture in statistics.pictures] == [True, False]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_reference_that_finds_nothing_leaves_gates_of_pairs_not_run_and_never_passed(precision: str) -> None:
    rows = judged(measured((found(), found()), (found(), found())), precision)
    verdicts = {metric: row.verdict for metric, row in rows.items()}
    assert {metric for metric, verdict in verdicts.items() if verdict == Verdict.NOT_RUN} == {
        "mask_iou",
        "box_iou",
        "score",
    }
    assert {metric for metric, verdict in verdicts.items() if verdict == Verdict.PASS} == {
        "count", "presence", "nonfinite", "incomparable",
    }  # fmt: skip
    assert "add a sample on which the model finds something" in str(rows["mask_iou"].reason)


def test_an_instance_that_is_new_fails_where_the_reference_finds_nothing() -> None:
    assert set(failed(measured((found(), found(B))))) == {"count"}


def test_an_empty_mask_on_both_sides_is_no_agreement() -> None:
    empty = found((5, 5, 5, 9))
    reason = failed(measured((empty, empty)))["count"]
    assert reason is not None and "is lost: its mask is empty, and an empty mask overlaps nothing" in reason


def test_a_model_without_presence_or_queries_is_judged_by_all_else_and_named_without_them() -> None:
    def plain(*boxes: tuple[int, int, int, int]) -> Instances:
        return replace(found(*boxes), queries=None, presence=None)

    rows = judged(measured((plain(A, B), plain(A, B))))
    assert set(rows) == {*EXACT, "nonfinite", "incomparable"} - {"presence"}
    assert {row.verdict for row in rows.values()} == {Verdict.PASS}
    statistics = measured((plain(A, B), plain(A)))
    assert failed(statistics) == {
        "count": "count is 1, not <= 0: instance 1 of sample0 (box 20,5,40,25, score 0.9000) is lost"
    }
    assert "presence" not in statistics.pictures[0]


def test_presence_is_still_asked_for_where_nothing_could_be_compared() -> None:
    statistics = InstanceStatistics(0.5)
    assert not statistics.comparable(HERE, row(), row(logits=np.full(2, np.nan, np.float32)))
    assert "presence" in failed(statistics)


# ------------------------------------------------------------------ outputs that cannot be compared


def row(**changes: np.ndarray) -> dict[str, np.ndarray]:
    sound = {"masks": np.zeros((2, 4, 4), np.float32), "logits": np.ones(2, np.float32), "valid": np.ones(2, np.bool_)}
    return sound | changes


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_pixel_that_is_no_number_fails_by_name_and_the_picture_is_left_out(value: float) -> None:
    statistics, masks = InstanceStatistics(0.5), row()["masks"].copy()
    masks[1, 2, 3] = value
    assert not statistics.comparable(HERE, row(), row(masks=masks))
    reasons = failed(statistics)
    assert f"sample0 has 1 in masks, the first one ({value}) at [1, 2, 3]" in str(reasons["nonfinite"])
    assert set(reasons) == {"nonfinite", *EXACT}, "nothing was compared, so no gate can pass"


def test_another_shape_or_dtype_fails_by_name() -> None:
    for changed, said in (
        ({"masks": np.zeros((1, 4, 4), np.float32)}, "masks is float32[1, 4, 4] where float32[2, 4, 4] is expected"),
        ({"logits": np.ones(2, np.float64)}, "logits is float64[2] where float32[2] is expected"),
    ):
        statistics = InstanceStatistics(0.5)
        assert not statistics.comparable(HERE, row(), row(**changed))
        assert failed(statistics)["incomparable"] == f"incomparable is 1, not <= 0: sample0: {said}"


def test_sound_rows_are_comparable() -> None:
    statistics = InstanceStatistics(0.5)
    assert statistics.comparable(HERE, row(), row())
    assert (statistics.outputs.nonfinite, statistics.outputs.problems) == (0, [])

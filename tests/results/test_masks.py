"""Masks of prompts, compared by the kind itself and judged by its gates: equal ones pass, every fault is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam3_build.compare.choices import TIE
from sam3_build.compare.details import DETAILS, overlays_of
from sam3_build.compare.judge import Row, Verdict, judge, result_gates
from sam3_build.compare.outputs import PictureRow
from sam3_build.drawing.palette import DIFFERENCE, MEANT, NOT_MEANT
from sam3_build.drawing.sheet import SHEET
from sam3_build.errors import BuildError
from sam3_build.pipeline.masks import Masks, boxes_around
from sam3_build.plugins import ComparedCase, CompareRequest
from sam3_build.results.masks.result import RESULT
from sam3_build.results.masks.statistics import MaskStatistics
from sam3_build.spec import PIPELINE, Comparison, Kind

HEIGHT, WIDTH = 60, 80
POINTS = [{"label": 1, "x": 20, "y": 20}, {"label": 0, "x": 60, "y": 40}]
SAMPLE = {"prompts": {"points": POINTS}}


def answer(**changes: object) -> Masks:
    """Three squares inside each other, of which the second is taken."""
    masks = np.zeros((3, HEIGHT, WIDTH), np.bool_)
    for mask, side in zip(masks, (20, 30, 40), strict=True):
        mask[10 : 10 + side, 10 : 10 + side] = True
    whole = Masks(masks, np.array([0.7, 0.9, 0.8], np.float32), 1)
    return replace(whole, **changes)


def judged(*pairs: tuple[Masks, Masks], precision: str = "fp16") -> tuple[Row, ...]:
    statistics = MaskStatistics()
    for i, sides in enumerate(pairs):
        statistics.add(PictureRow(f"sample{i}", 0, i), *sides)
    return rows(statistics.summary(), precision)


def rows(measured: Mapping[str, object], precision: str = "fp16") -> tuple[Row, ...]:
    gates = {RESULT.output: result_gates(RESULT, precision, {})}
    comparison = Comparison(
        PIPELINE, "a vs b", precision, None, "x", None, tuple(gates), gates, Kind.RESULT, result=RESULT.name
    )
    return judge(comparison, json.loads(json.dumps({"outputs": {RESULT.output: measured}}, allow_nan=False)))


def failed(found: tuple[Row, ...]) -> dict[str, str]:
    return {row.metric: str(row.reason) for row in found if row.verdict == Verdict.FAIL}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_equal_masks_pass_every_gate_and_all_are_judged(precision: str) -> None:
    same = judged((answer(), answer()), (answer(chosen=0), answer(chosen=0)), precision=precision)
    names = ("mask_iou", "score", "choice", "visible", "nonfinite", "incomparable")
    assert {row.metric: row.verdict for row in same} == dict.fromkeys(names, Verdict.PASS)


def test_default_gates_are_the_documented_ones() -> None:
    assert {metric.name: (metric.exact, metric.reduced) for metric in RESULT.metrics} == {
        "mask_iou": (0.999, 0.98),
        "score": (1e-3, 0.02),
        "choice": (0, 0),
        "visible": (0, 0),
    }


def test_a_mask_that_differs_is_named() -> None:
    other = answer()
    other.masks[1, 10:12, 10:40] = False
    (reason,) = failed(judged((answer(), answer()), (answer(), other))).values()
    assert reason == "mask_iou is 0.9333, not >= 0.98: mask 1 of sample1"


def test_a_score_of_a_mask_that_is_not_taken_counts_too() -> None:
    other = answer(scores=np.array([0.7, 0.9, 0.83], np.float32))
    assert failed(judged((answer(), other))) == {"score": "score is 0.03, not <= 0.02: sample0"}


def test_another_mask_is_a_fault_and_is_named() -> None:
    found = failed(judged((answer(), answer(chosen=2))))
    assert found["choice"] == (
        "choice is 1, not <= 0: sample0 takes mask 2 where mask 1 is expected (scores 0.7000, 0.9000, 0.8000)"
    )
    assert "mask_iou" in found, "what the user gets is another mask"


@pytest.mark.parametrize(("gap", "ties"), [(TIE * 0.9, True), (TIE * 1.1, False)])
def test_a_near_tie_is_told_apart_and_the_same_mask_is_compared(gap: float, *, ties: bool) -> None:
    scores = np.array([0.1, 0.9, 0.9 - gap], np.float32)
    expected, actual = answer(scores=scores), answer(scores=scores, chosen=2)
    assert (failed(judged((expected, actual))) == {}) == ties
    assert bool(reported(judged((expected, actual)))) == ties
    actual.masks[1] = False
    assert failed(judged((expected, actual))), "a tie excuses the choice, and no other mask"


def reported(found: tuple[Row, ...]) -> dict[str, str]:
    return {row.output: str(row.reason) for row in found if row.verdict == Verdict.INFO}


def taken(which: int, *scores: float) -> Masks:
    """One of three squares inside each other, which a network chose by these scores and gives alone."""
    whole = answer()
    chosen = np.array(scores, np.float32)
    return Masks(whole.masks[[which]], chosen[[which]], 0, choice_scores=chosen)


def test_a_tie_of_a_network_that_gives_one_mask_is_reported_and_not_compared() -> None:
    """The other mask is not there: neither a failure nor a pass can be made of it."""
    same = taken(0, 0.9, 0.5, 0.1), taken(0, 0.898, 0.5, 0.1)
    tied = taken(1, 0.5, 0.9, 0.899), taken(2, 0.5, 0.898, 0.9)
    found = judged(same, tied)
    assert failed(found) == {} and {row.verdict for row in found if row.metric == "mask_iou"} == {Verdict.PASS}
    takes = "takes mask 2 where mask 1 is expected (scores 0.5000, 0.9000, 0.8990)"
    assert reported(found) == {"sample1": f"{takes}; the two nearly tie, and neither is compared"}
    alone = {row.metric: row for row in judged(tied)}
    assert alone["mask_iou"].verdict == alone["score"].verdict == Verdict.NOT_RUN
    assert alone["mask_iou"].reason == "in all prompts another mask is taken that nearly ties"


def test_another_choice_of_such_a_network_by_far_is_a_fault() -> None:
    wrong = taken(2, 0.5, 0.8, 0.9)
    found = judged((taken(1, 0.5, 0.9, 0.8), wrong))
    assert failed(found).keys() == {"mask_iou", "choice"} and reported(found) == {}
    # Another mask than its scores say: a tie excuses no mask that is taken in spite of them.
    assert failed(
        judged((taken(1, 0.5, 0.9, 0.899), replace(wrong, choice_scores=taken(1, 0.5, 0.9, 0.899).choice_scores)))
    )


def test_where_no_object_is_visible_nothing_else_is_compared() -> None:
    """-1024 everywhere would pass any comparison of numbers."""
    hidden = answer(visible=False)
    found = judged((hidden, answer(visible=False, chosen=2)))
    assert {row.metric: row.verdict for row in found if row.metric in ("mask_iou", "score", "choice")} == dict.fromkeys(
        ("mask_iou", "score", "choice"), Verdict.NOT_RUN
    )
    assert failed(judged((hidden, answer()))) == {"visible": "visible is 1, not <= 0: the object of sample0 is new"}
    assert failed(judged((answer(), hidden)))["visible"].endswith("the object of sample0 is lost")


def test_empty_masks_on_both_sides_have_no_overlap_and_one_empty_mask_has_none() -> None:
    empty = answer(masks=np.zeros((3, HEIGHT, WIDTH), np.bool_))
    (row,) = [row for row in judged((empty, empty)) if row.metric == "mask_iou"]
    assert row.verdict == Verdict.NOT_RUN and "the masks of all objects are empty" in str(row.reason)
    assert failed(judged((answer(), empty)))["mask_iou"].startswith("mask_iou is 0")


def test_boxes_lie_around_masks() -> None:
    masks = np.zeros((2, 10, 12), np.bool_)
    masks[0, 2:5, 3:9] = True
    assert boxes_around(masks).tolist() == [[3, 2, 9, 5], [0, 0, 0, 0]]


# ------------------------------------------------------------------ the whole comparison


def request(actual: np.ndarray) -> CompareRequest:
    """A family whose outputs are mask logits [rows, 1, h, w]; expected is a square."""
    expected = np.where(answer().masks[None, 1:2], 1, -1).astype(np.float32)

    def find(outputs: Mapping[str, np.ndarray], size: tuple[int, int], threshold: float) -> object:
        assert size == (HEIGHT, WIDTH) and threshold == 0.5
        return Masks(outputs["logits"] > 0, np.array([0.9], np.float32), 0)

    case = ComparedCase("sample7", (7,), 0, "", lambda: {"logits": expected}, lambda: {"logits": actual})
    return CompareRequest(
        cases=[case],
        samples={7: SAMPLE},
        picture=lambda sample, frame: np.full((HEIGHT, WIDTH, 3), 90, np.uint8),
        find=find,
        score_threshold=0.5,
        target="onnxruntime fp16",
        parity="",
    )


def test_prompts_are_drawn_and_what_differs_is_red(tmp_path: Path) -> None:
    shifted = np.where(np.roll(answer().masks[None, 1:2], 8, 3), 1, -1).astype(np.float32)
    measured = RESULT.compare(request(shifted), tmp_path)
    assert measured["metrics"]["mask_iou"] == pytest.approx(22 / 38) and measured["masks"] == 1
    (overlay,) = overlays_of(json.loads((tmp_path / DETAILS).read_bytes()))
    assert overlay.title == "sample 7: 2 points" and overlay.caption == "a mask, score 0.900; mask IoU 0.578"
    assert overlay.metrics["mask_iou"] == measured["metrics"]["mask_iou"]
    with Image.open(tmp_path / overlay.file) as image:
        pixels = np.asarray(image.convert("RGB"))
    asked, _, target = np.split(pixels[:, : 3 * (pixels.shape[1] // 3)], 3, axis=1)
    for colour in (MEANT, NOT_MEANT):
        assert (asked == colour).all(2).any(), "both points are on the picture of the prompt"
    assert (target == DIFFERENCE).all(2).any() and not (asked == DIFFERENCE).all(2).any()
    assert (tmp_path / SHEET).is_file()


def test_nan_is_named_and_not_compared(tmp_path: Path) -> None:
    broken = np.full((1, 1, HEIGHT, WIDTH), np.nan, np.float32)
    found = failed(rows(RESULT.compare(request(broken), tmp_path)))
    assert found["nonfinite"].startswith("nonfinite is 4800") and "sample7" in found["nonfinite"]


def test_a_family_that_gives_something_else_is_an_error(tmp_path: Path) -> None:
    wrong = replace(request(np.ones((1, 1, HEIGHT, WIDTH), np.float32)), find=lambda *_: None)
    with pytest.raises(BuildError, match="gives NoneType for a pipeline whose result is masks"):
        RESULT.compare(wrong, tmp_path)

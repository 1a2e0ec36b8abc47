"""Words for a prompt, for what was found, and for what differs."""

from __future__ import annotations

import pytest

from sam3_build.documents import Json
from sam3_build.drawing.captions import object_prompt, prompt
from sam3_build.results.instances.captions import differences, found

POINT: dict[str, Json] = {"label": 1, "x": 1, "y": 2}
PAIR = {"mask_iou": 0.9996}
ROW = {"expected": 2, "actual": 3, "pairs": [PAIR, {"mask_iou": 1.0}], "lost": [], "added": [{}]}
FLIPPED = {"expected": 0.97, "actual": 0.31, "agrees": False}


def box(label: int) -> dict[str, Json]:
    return {"label": label, "x": 1, "y": 2, "w": 3, "h": 4}


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ({"text": "yellow star"}, '"yellow star"'),
        ({"text": "star", "boxes": [box(0)]}, '"star", not like the dashed one'),
        ({"boxes": [box(1)]}, "like the boxed one"),
        ({"boxes": [box(1), box(0), box(1)]}, "like the 2 boxed ones, not like the dashed one"),
        ({"text": "two\nlines"}, '"two lines"'),
    ],
)
def test_a_prompt_in_words(prompts: dict[str, Json], said: str) -> None:
    assert prompt(prompts) == said


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ({"points": [POINT]}, "1 point"),
        ({"boxes": [box(1)]}, "a box"),
        ({"points": [POINT] * 2, "boxes": [box(1)], "mask": "mask0"}, "2 points, a box, a mask"),
    ],
)
def test_an_object_is_prompted_and_not_likened(prompts: dict[str, Json], said: str) -> None:
    assert object_prompt(prompts) == said


def test_what_was_found_on_both_sides_and_an_iou_that_is_not_1_never_reads_so() -> None:
    assert found(ROW) == "3 found, 2 by PyTorch; smallest mask IoU 0.999"
    assert found({"expected": 0, "actual": 0, "pairs": []}) == "nothing found, nothing by PyTorch"
    assert found({"problem": "x"}) == ""


def test_differences_are_those_that_a_user_would_notice() -> None:
    assert differences({**ROW, "presence": {"agrees": True}}) == ("1 new",)
    assert differences({**ROW, "lost": [{}, {}], "presence": FLIPPED}) == (
        "2 lost",
        "1 new",
        "presence 0.97 became 0.31",
    )
    assert differences({"problem": "sample0 has a NaN"}) == ("sample0 has a NaN",)
    assert differences({"expected": 1, "actual": 1, "pairs": [PAIR], "lost": [], "added": []}) == ()

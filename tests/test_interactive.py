"""Points, a box and a mask become what SAM's networks take; what is no prompt for one object is refused by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam3_build.errors import BuildError, Keys
from sam3_build.params import SampleParams
from sam3_build.pipeline.interactive import (
    LOGIT,
    ObjectPrompts,
    case_shapes,
    check,
    click_arrays,
    clicks,
    mask_logits,
    mask_of,
    problems,
)
from sam3_build.pipeline.prompts import Box, Point
from sam3_build.spec import CaseRequest

POINTS = (Point(1, 3, 4), Point(0, 30, 40))
BOX = Box(1, 10, 20, 30, 40)


def test_points_come_first_and_a_box_is_its_corners() -> None:
    found = clicks(ObjectPrompts(POINTS, (BOX,)))
    assert found == [(3, 4, 1), (30, 40, 0), (10, 20, 2), (40, 60, 3)]
    coordinates, labels = click_arrays([found, found[::-1]], (2, 0.5))
    assert coordinates.dtype == labels.dtype == np.float32
    assert coordinates[0].tolist() == [[6, 2], [60, 20], [20, 10], [80, 30]]
    assert coordinates[1].tolist() == coordinates[0].tolist()[::-1]
    assert labels.tolist() == [[1, 0, 2, 3], [3, 2, 0, 1]]


def test_rows_of_unequal_length_are_refused_because_filling_up_changes_answers() -> None:
    with pytest.raises(BuildError, match="prompts of 1, 2 points"):
        click_arrays([[(1, 1, 1)], [(1, 1, 2), (2, 2, 3)]], (1, 1))


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (ObjectPrompts(boxes=(BOX, BOX)), "has 2 boxes; a prompt is for one object"),
        (ObjectPrompts(boxes=(Box(0, 1, 1, 5, 5),)), "the box 1,1,5,5 is negative"),
        (ObjectPrompts(boxes=(Box(1, 80, 1, 5, 5),)), "the box 80,1,5,5 lies outside a.png, which is 80 x 60 pixels"),
        (ObjectPrompts((Point(1, 80, 3),)), "the point 80,3 lies outside a.png, which is 80 x 60 pixels"),
        (ObjectPrompts((Point(1, 3, -1),)), "the point 3,-1 lies outside"),
    ],
)
def test_what_is_no_prompt_for_one_object_is_refused(prompts: ObjectPrompts, message: str) -> None:
    check(ObjectPrompts(POINTS, (BOX,)), (60, 80))
    with pytest.raises(BuildError, match=message):
        check(prompts, (60, 80), "a.png")


def test_a_mask_becomes_logits_in_the_frame_of_the_network() -> None:
    mask = np.zeros((60, 80), np.bool_)
    mask[:30] = True
    logits = mask_logits(mask, (12, 16), 16)
    assert (logits[:6] == LOGIT).all() and (logits[6:] == -LOGIT).all(), "what is below the picture is outside"
    assert (mask_logits(np.ones((9, 9), np.bool_), (3, 3), 4) == LOGIT).sum() == 9
    assert not mask_logits(None, (12, 16), 16).any()


def test_a_mask_that_lies_partly_in_a_cell_is_averaged() -> None:
    mask = np.zeros((4, 4), np.bool_)
    mask[:, 0] = True
    assert mask_logits(mask, (2, 2), 2).tolist() == [[0, -LOGIT]] * 2


def sample(number: int, **prompts: object) -> SampleParams:
    return SampleParams(number=number, pictures=("image0",), prompts=prompts)


def faults(samples: Sequence[SampleParams], files: Mapping[str, Path]) -> list[tuple[Keys, str]]:
    return problems([("interactive", one) for one in samples], None, files, None)


def test_all_that_is_wrong_with_samples_is_said_at_once_and_where(tmp_path: Path) -> None:
    Image.new("RGB", (80, 60)).save(tmp_path / "a.png")
    Image.new("L", (60, 80), 255).save(tmp_path / "turned.png")
    files = {"image0": tmp_path / "a.png", "mask0": tmp_path / "turned.png"}
    wrong = {"points": [{"label": 1, "x": 99, "y": 1}], "boxes": [{"label": 0, "x": 1, "y": 1, "w": 2, "h": 2}]}
    found = faults([sample(0, points=[{"label": 1, "x": 9, "y": 1}]), sample(3, **wrong, mask="mask0")], files)
    assert [keys for keys, _ in found] == [("samples", 3, key) for key in ("points", "boxes", "mask")]
    assert found[2][1] == "turned.png is 60 x 80 pixels, and its picture 80 x 60: a mask has the picture's size"
    (gone,) = faults([sample(0)], {"image0": tmp_path / "gone.png"})
    assert gone[0] == ("samples", 0, "image") and "cannot be read" in gone[1]


def test_the_mask_of_a_picture_is_what_is_not_black(tmp_path: Path) -> None:
    drawn = np.zeros((6, 8), np.uint8)
    drawn[2:4, 3] = 1
    Image.fromarray(drawn).save(tmp_path / "m.png")
    found = mask_of("mask0", {"mask0": tmp_path / "m.png"}, (6, 8))
    assert found is not None and found.dtype == np.bool_ and (found == (drawn > 0)).all()
    assert mask_of(None, {}, (6, 8)) is None
    with pytest.raises(BuildError, match=r"gone.png cannot be read: No such file"):
        mask_of("mask0", {"mask0": tmp_path / "gone.png"}, (6, 8))


def test_a_batch_has_rows_of_equally_many_points() -> None:
    prompts = [ObjectPrompts(POINTS), ObjectPrompts(POINTS[:1]), ObjectPrompts(boxes=(BOX,))]
    request = CaseRequest("v1", "interactive", "meta", prompts, [0, 4, 5], 1, {})
    found = {case.name: case for case in case_shapes(request, lambda prompt: len(clicks(prompt)))}
    assert {name: (case.samples, dict(case.sizes)) for name, case in found.items()} == {
        "sample0": ((0,), {"batch": 1, "num_points": 2}),
        "sample4": ((1,), {"batch": 1, "num_points": 1}),
        "sample5": ((2,), {"batch": 1, "num_points": 2}),
        "batch": ((0, 2), {"batch": 2, "num_points": 2}),
    }
    (_, alone) = case_shapes(CaseRequest("v1", "interactive", "meta", prompts[:1], [7], 1, {}), lambda _: 2)
    assert alone.samples == (0, 0), "rows are measured even where no other sample has as many points"

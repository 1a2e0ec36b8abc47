"""What the runtime asks where each prompt has a mask of its own, and what it makes of the answers."""

from __future__ import annotations

import numpy as np

from sam3_build.pipeline.interactive import ObjectPrompts
from sam3_build.pipeline.masks import Masks
from sam3_build.pipeline.prompts import Box, Point
from sam3_build.runtime.ask import Ask
from sam3_build.runtime.found import KINDS, joined

CORNERS = [[1, 2, 5, 7], [3, 3, 9, 9]]
BOXES = (Box(1, 1, 2, 4, 5), Box(1, 3, 3, 6, 6))


def test_several_boxes_alone_are_as_many_objects() -> None:
    asked = Ask.of(boxes=CORNERS).prompts(ObjectPrompts, "masks")
    assert asked == [ObjectPrompts(boxes=(box,)) for box in BOXES]


def test_all_else_is_one_prompt() -> None:
    with_point = Ask.of(boxes=CORNERS, points=[[4, 4]]).prompts(ObjectPrompts, "masks")
    assert with_point == [ObjectPrompts(boxes=BOXES, points=(Point(1, 4, 4),))]
    assert Ask.of(boxes=CORNERS).prompts(ObjectPrompts, "instances") == [ObjectPrompts(boxes=BOXES)]
    points = Ask.of(points=[[1, 1], [2, 2]], point_labels=[1, 0]).prompts(ObjectPrompts, "masks")
    assert points == [ObjectPrompts((Point(1, 1, 1), Point(0, 2, 2)))]


def test_the_mask_that_is_taken_is_what_a_user_gets_and_nothing_of_an_object_that_is_not_there() -> None:
    masks = np.zeros((2, 6, 8), np.bool_)
    masks[0, 1:3, 2:5] = True
    masks[1] = True
    answers = [Masks(masks, np.array([0.7, 0.9], np.float32), 0, visible) for visible in (True, False)]
    found = joined([KINDS["masks"](one, False) for one in answers], ("object", "object"), np.zeros((6, 8, 3), np.uint8))
    assert len(found) == 1 and found.prompts.tolist() == [0] and (found.masks[0] == masks[0]).all()
    assert found.boxes.tolist() == [[2, 1, 5, 3]] and found.scores.tolist() == [np.float32(0.7)]

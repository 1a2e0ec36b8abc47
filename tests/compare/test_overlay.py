"""Panels: what is drawn where, and in which colour; and what a palette leaves of it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sam3_build.drawing.overlay import panels
from sam3_build.drawing.palette import BACKGROUND, COLOURS, DIFFERENCE, MEANT, NOT_MEANT, in_few_colours
from sam3_build.pipeline.instances import Instances
from sam3_build.pipeline.prompts import Box
from sam3_build.results.instances.statistics import paired

HEIGHT, WIDTH = 126, 168


def found(*boxes: tuple[int, int, int, int]) -> Instances:
    """Instances whose masks fill their boxes."""
    masks = np.zeros((len(boxes), HEIGHT, WIDTH), np.bool_)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    scores = np.full(len(boxes), 0.9, np.float32)
    return Instances(scores, np.array(boxes, np.float32).reshape(-1, 4), masks)


def picture() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)


def box(x: float, y: float, w: float, h: float, label: int) -> Box:
    return Box(label, x, y, w, h)


def drawn(expected: Instances, actual: Instances | None, boxes: tuple[Box, ...] = (), width: int = WIDTH):
    pairs = paired(expected, actual) if actual else ()
    return panels(picture(), boxes, expected, actual, pairs, width)


def of(panel: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (panel == colour).all(2)


NOTHING = found()
A, B = (10, 20, 50, 60), (100, 30, 150, 90)


def test_a_picture_without_boxes_stays_as_it_is() -> None:
    assert (drawn(NOTHING, NOTHING)[0] == picture()).all()


def test_a_box_that_is_meant_is_a_closed_green_line_on_white_and_its_inside_stays() -> None:
    asked = drawn(NOTHING, NOTHING, (box(40, 30, 60, 50, 1),))[0]
    line = of(asked, MEANT)
    for edge in (line[30, 40:100], line[79, 40:100], line[30:80, 40], line[30:80, 99]):
        assert edge.all()
    assert of(asked, BACKGROUND)[28, 40:100].all() and not of(asked, NOT_MEANT).any()
    assert (asked[33:77, 43:97] == picture()[33:77, 43:97]).all()


def test_a_box_that_is_not_meant_is_dashed_and_red() -> None:
    asked = drawn(NOTHING, NOTHING, (box(40, 30, 60, 50, 0),))[0]
    for edge in (np.s_[30, 40:100], np.s_[79, 40:100], np.s_[30:80, 40], np.s_[30:80, 99]):
        red, white = of(asked, NOT_MEANT)[edge], of(asked, BACKGROUND)[edge]
        assert (red | white).all() and 0.3 < red.mean() < 0.7
        assert np.count_nonzero(np.diff(red)) >= 8, "dashes, not one stroke"
    assert not of(asked, MEANT).any()


@pytest.mark.parametrize("given", [(-30, -30, 400, 400), (150, 100, 90, 90), (-9, 40, 30, 9000)])
def test_a_box_that_leaves_the_picture_is_drawn_along_its_edge(given: tuple[int, int, int, int]) -> None:
    line = of(drawn(NOTHING, NOTHING, (box(*given, 1),))[0], MEANT)
    x, y, w, h = given
    assert line[:, 0].any() == (x <= 0) and line[0].any() == (y <= 0)
    assert line[:, -1].any() == (x + w >= WIDTH) and line[-1].any() == (y + h >= HEIGHT)


def test_boxes_follow_the_picture_when_it_is_enlarged() -> None:
    asked = drawn(NOTHING, NOTHING, (box(40, 30, 60, 50, 1),), 2 * WIDTH)[0]
    rows, columns = np.nonzero(of(asked, MEANT))
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (58, 162, 78, 202)


def test_masks_are_tinted_where_they_are_and_the_rest_is_grey() -> None:
    _, there, here = drawn(found(A, B), found(A, B))
    assert (there == here).all(), "both sides find the same"
    inside = np.zeros((HEIGHT, WIDTH), np.bool_)
    for x0, y0, x1, y1 in (A, B):
        inside[y0 : y1 + 1, x0 : x1 + 1] = True
    grey = (here == here[..., :1]).all(2)
    assert grey[~inside].all() and not grey[inside].any()
    assert tuple(here[A[1], A[0]]) == COLOURS[0] and tuple(here[B[1], B[0]]) == COLOURS[1]


def test_what_is_lost_and_what_is_new_is_red_on_the_target_and_a_thick_box_where_it_is() -> None:
    _, there, here = drawn(found(A), found(B))
    for x0, y0, x1, y1 in (A, B):
        assert of(here, DIFFERENCE)[y0:y1, x0:x1].all()
    assert not of(here, DIFFERENCE)[:18].any()
    red = of(there, DIFFERENCE)
    assert red[A[1] - 1 : A[1] + 2, A[0] : A[2]].all() and not red[30:50, 20:40].any() and not red[:, 60:].any()


def test_a_single_pixel_of_a_large_picture_still_shows() -> None:
    expected, actual = found(B), found(B)
    actual.masks[0, 100, 20] = True
    marked = of(drawn(expected, actual, width=42)[2], DIFFERENCE)
    assert np.argwhere(marked).tolist() == [[25, 5]]


def test_a_target_that_cannot_be_read_has_an_empty_panel_and_nothing_is_called_lost() -> None:
    _, there, here = drawn(found(A), None)
    assert of(here, BACKGROUND).all()
    assert not of(there, DIFFERENCE).any() and tuple(there[A[1], A[0]]) == COLOURS[0]


def test_a_tall_picture_is_narrower_and_not_higher_than_twice_the_width() -> None:
    tall = Instances(*(np.zeros(shape) for shape in ((0,), (0, 4), (0, 900, 100))))
    (asked, *_) = panels(np.zeros((900, 100, 3), np.uint8), (), tall, tall, (), 168)
    assert asked.shape == (336, 37, 3)


def test_a_palette_keeps_the_colours_that_mean_something_and_comes_near_the_rest() -> None:
    boxes = box(40, 30, 60, 50, 1), box(5, 5, 20, 20, 0)
    actual = found(A)
    actual.masks[0, 100, 20] = True
    whole = np.concatenate(drawn(found(A, B), actual, boxes), axis=1)
    with in_few_colours(Image.fromarray(whole)) as image:
        assert image.mode == "P"
        few = np.asarray(image.convert("RGB"))
    for colour in (BACKGROUND, DIFFERENCE, MEANT, NOT_MEANT, COLOURS[0]):
        assert of(whole, colour).any() and of(few, colour)[of(whole, colour)].all(), colour
    found_in = np.s_[:, WIDTH:]
    assert (of(few, DIFFERENCE) == of(whole, DIFFERENCE))[found_in].all(), "nothing becomes a difference"
    assert np.abs(few.astype(int) - whole)[found_in].max() < 30, "what is grey and one colour has steps"

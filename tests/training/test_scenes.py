"""Drawn scenes: the same again for the same seed, half of everything visible, and questions with the right answers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from training.questions import TEXT_OF_BOXES, ask_both, ask_box, ask_boxes, ask_negative, ask_words
from training.scenes import LEAST_VISIBLE, MOST_SHAPES, RADII, SHAPES, SIDE, Scene, draw, outline


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw(7, number) for number in range(200)]


def test_a_scene_is_the_same_whatever_was_drawn_before(scenes: list[Scene]) -> None:
    again = draw(7, 5)
    assert np.array_equal(again.picture, scenes[5].picture)
    assert [shape.box for shape in again.shapes] == [shape.box for shape in scenes[5].shapes]
    assert not np.array_equal(draw(8, 5).picture, again.picture)
    assert not np.array_equal(draw(7, 6).picture, again.picture)


def test_scenes_hold_one_to_five_shapes_that_do_not_share_pixels(scenes: list[Scene]) -> None:
    assert {len(scene.shapes) for scene in scenes} == set(range(1, MOST_SHAPES + 1))
    for scene in scenes:
        assert scene.picture.shape == (SIDE, SIDE, 3)
        assert np.sum([shape.mask for shape in scene.shapes], axis=0).max() == 1


def test_boxes_hug_what_is_visible(scenes: list[Scene]) -> None:
    for shape in (shape for scene in scenes for shape in scene.shapes):
        left, top, right, bottom = shape.box
        inside = shape.mask[top:bottom, left:right]
        assert inside.sum() == shape.mask.sum()
        assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()


def test_at_least_half_of_every_shape_is_visible(scenes: list[Scene]) -> None:
    """The smallest outline that can be drawn has a known area, of which half must be seen."""
    smallest = {
        shape: min(outline(shape, 100 + turn, 100, 12.0, turn).sum() for turn in np.linspace(0, 3, 7))
        for shape in SHAPES
    }
    for shape in (shape for scene in scenes for shape in scene.shapes):
        assert shape.mask.sum() >= LEAST_VISIBLE * smallest[shape.shape]


def test_shapes_have_their_colour(scenes: list[Scene]) -> None:
    """Red things have more red than green and blue, and so on: the words mean what they say."""
    strongest = {"red": 0, "green": 1, "blue": 2}
    for scene in scenes:
        for shape in (shape for shape in scene.shapes if shape.colour in strongest):
            assert scene.picture[shape.mask].mean(axis=0).argmax() == strongest[shape.colour]


def test_three_of_four_texts_name_something_that_is_there(scenes: list[Scene]) -> None:
    asked = [ask_words(scene, np.random.default_rng([1, i])) for i, scene in enumerate(scenes)]
    assert 0.65 < np.mean([bool(question.wanted) for question in asked]) < 0.85
    for scene, question in zip(scenes, asked, strict=True):
        words = set(question.text.split())
        named = tuple(i for i, s in enumerate(scene.shapes) if words <= {s.colour, s.shape})
        assert question.wanted == named


def test_a_positive_box_asks_for_everything_of_its_kind(scenes: list[Scene]) -> None:
    for i, scene in enumerate(scenes):
        question = ask_box(scene, np.random.default_rng([1, i]))
        ((label, corners),) = question.boxes
        (boxed,) = (s for s in scene.shapes if s.box == corners)
        assert (label, question.text) == (1, TEXT_OF_BOXES)
        assert question.wanted == tuple(k for k, s in enumerate(scene.shapes) if s.kind == boxed.kind)


def test_a_negative_box_takes_its_kind_out_of_the_answer(scenes: list[Scene]) -> None:
    taken = left_over = asked = 0
    for i, scene in enumerate(scenes):
        question = ask_negative(scene, np.random.default_rng([1, i]))
        ((label, corners),) = question.boxes
        (boxed,) = (s for s in scene.shapes if s.box == corners)
        assert label == 0
        named = _named(scene, question.text)
        assert set(question.wanted) == {k for k in named if scene.shapes[k].kind != boxed.kind}
        asked += len(scene.shapes) > 1
        taken += len(question.wanted) < len(named)
        left_over += bool(question.wanted)
    assert taken > asked / 2
    assert left_over > 0.6 * asked, "a negative box must not come to mean that nothing is there"


def test_a_positive_box_with_words_changes_nothing_of_what_they_name(scenes: list[Scene]) -> None:
    for i, scene in enumerate(scenes):
        question = ask_both(scene, np.random.default_rng([1, i]))
        ((label, corners),) = question.boxes
        assert label == 1 and set(question.wanted) == _named(scene, question.text)
        assert corners in {scene.shapes[k].box for k in question.wanted}


def test_training_asks_by_boxes_in_every_way(scenes: list[Scene]) -> None:
    ways: Counter[tuple[bool, tuple[int, ...]]] = Counter()
    for i, scene in enumerate(scenes):
        question = ask_boxes(scene, np.random.default_rng([1, i]))
        labels = tuple(label for label, _ in question.boxes)
        ways[question.text == TEXT_OF_BOXES, labels] += 1
        if labels == (1, 1):  # what is boxed, a little off, is wanted
            edges = np.array([corners for _, corners in question.boxes])
            wanted = np.array([scene.shapes[k].box for k in question.wanted])
            off = np.abs(edges[:, None] - wanted[None]).max(2).min(1)
            assert (off < 0.1 * 2 * 1.25 * RADII[1]).all()
    assert set(ways) == {(True, (1,)), (True, (1, 0)), (True, (1, 1)), (False, (0,)), (False, (1,))}
    assert min(ways.values()) > 5


def _named(scene: Scene, text: str) -> set[int]:
    words = set(text.split()) - {"a", "the"}
    return {k for k, shape in enumerate(scene.shapes) if words <= {shape.colour, shape.shape}}

"""Prompts as people write them, in options and in mark files: what is read, and that all else is one message."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sam3_build.errors import BuildError
from sam3_build.pipeline import marks, prompts
from sam3_build.pipeline.marks import Asked, Marks, asked_by_name
from sam3_build.pipeline.prompts import Box, Point
from sam3_build.runtime.ask import Ask, taking

# Every example in every run: a failure must come back.
quick = settings(max_examples=100, derandomize=True, deadline=None, database=None)

LIST = [
    {"type": "point", "data": [500, 375], "label": 1},
    {"type": "point", "data": [1.5, 2], "label": 0},
    {"type": "rectangle", "data": [10, 20, 30, 60], "label": 0},
    {"type": "rectangle", "data": [0, 0, 5, 5]},
    {"type": "text", "data": "truck"},
]
READ = Marks(("truck",), (Box(0, 10, 20, 20, 40), Box(1, 0, 0, 5, 5)), (Point(1, 500, 375), Point(0, 1.5, 2)))


def read(document: object, first: Asked | None = None) -> object:
    return asked_by_name(document, Path("beside"), first)  # type: ignore[arg-type]


def test_a_mark_file_is_a_list_or_lists_by_file_name() -> None:
    assert read(LIST) == [Asked(READ)]
    assert read({"photos/a.jpg": LIST, "b.jpg": []}) == {"a.jpg": [Asked(READ)], "b.jpg": []}


def test_marks_of_one_object_on_a_frame_are_one_prompt_and_what_is_no_mark_is_one_of_its_own() -> None:
    point, other = {"type": "point", "data": [1, 2]}, {"type": "point", "data": [3, 4], "label": 0}
    one, two, both = Point(1, 1, 2), Point(0, 3, 4), (Point(1, 1, 2), Point(0, 3, 4))
    assert read([point | {"object": 4}, other, other | {"object": 4}, point | {"object": 4, "frame": 2}]) == [
        Asked(Marks(points=both), object=4),
        Asked(Marks(points=(two,))),
        Asked(Marks(points=(one,)), frame=2, object=4),
    ]
    assert read([{"points": "pos:1,2;neg:3,4"}, {"points": "pos:1,2", "frame": 1}, {"mask": "m.png", "object": 3}]) == [
        Asked(Marks(points=both)),
        Asked(Marks(points=(one,)), frame=1),
        Asked(Marks(), Path("beside/m.png"), object=3),
    ]
    assert read([{"text": "star", "boxes": "pos:1,1,4,4"}]) == [Asked(Marks(("star",), (Box(1, 1, 1, 4, 4),)))]
    typed = Asked(Marks(("star",)), frame=1)
    assert read([point, other | {"frame": 1}, {"points": "pos:1,2", "frame": 1}], typed) == [
        Asked(Marks(("star",), points=(two,)), frame=1),
        Asked(Marks(points=(one,))),
        Asked(Marks(points=(one,)), frame=1),
    ]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("truck", "a list of marks is expected, not 'truck'"),
        ([3], "mark 0: an object with type and data is expected, not 3"),
        ([LIST[0], {"type": "rectangel"}], "mark 1: there is no type 'rectangel'; did you mean 'rectangle'?"),
        ([{"type": "point", "data": [1, 2, 3]}], "mark 0: [1.0, 2.0, 3.0] is no point"),
        ([{"type": "point", "data": [1, True]}], "mark 0: True is no number"),
        ([{"type": "point", "data": [1, 10**400]}], "is too large"),
        ([{"type": "point", "data": [1, 2], "label": 2}], "mark 0: the label is 2; 1 is meant, 0 is not meant"),
        ([{"type": "rectangle", "data": [9, 9, 1, 1]}], "mark 0: [9.0, 9.0, 1.0, 1.0] has no area"),
        ([{"type": "rectangle", "data": [0, 0, math.nan, 1]}], "is no box"),
        ([{"type": "rectangle", "data": "0,0,1,1"}], "mark 0: the data of a rectangle is 4 numbers, not '0,0,1,1'"),
        ([{"type": "text", "data": " "}], "mark 0: the data of a text is words, not ' '"),
        ({"a.jpg": {}}, "a.jpg: a list of marks is expected, not {}"),
        ({"x/a.jpg": [], "y/a.jpg": []}, "a.jpg is there twice"),
        ([{"frames": 1}], "mark 0: there is no 'frames'; did you mean 'frame'?"),
        ([{"frame": -1, "points": "pos:1,1"}], "mark 0: frame is -1; give a whole number from 0 on"),
        ([{"type": "point", "data": [1, 1], "object": True}], "mark 0: object is True; give a whole number"),
        ([{"points": [1, 2]}], "mark 0: points is [1, 2]; give text"),
        ([{"points": "pos:1"}], "mark 0: point 'pos:1' is not 'pos:x,y'"),
        ([{"object": 1}], "mark 0: nothing is asked for: give text, boxes, points or mask"),
        ([{"mask": " "}], "mark 0: mask is ' '; give text"),
    ],
)
def test_a_mark_file_that_is_wrong_is_named_by_its_mark(document: object, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        read(document)
    assert message in str(error.value)


# ------------------------------------------------------------------ any text, any document

# Digits of other scripts, numbers that are no digits, what only looks like a space, what opens and ends things.
LETTERS = "posneg:;,.-+eE_0123456789 \t\n\u0661\u00b2\u00bd\u221e\u00e9\U0001f408\0'\"[]{}\\/"
words = st.text(LETTERS, max_size=30)
number = st.decimals(-(10**6), 10**6, places=3, allow_nan=False).map(str)
written = st.builds(
    lambda label, values, gap: f"{label}:{f'{gap},{gap}'.join(values)}",
    st.sampled_from(["pos", "neg", "poz"]),
    st.sampled_from([2, 4]).flatmap(lambda count: st.lists(number, min_size=count, max_size=count)),
    st.sampled_from(["", " "]),
)
likely = st.one_of(words, st.lists(written, min_size=1, max_size=3).map(";".join))


@quick
@given(likely)
@example("pos:" + "9" * 400 + ",1")
@example("pos:4 0,40")
def test_points_of_any_text_are_points_in_pixels_or_a_value_error(text: str) -> None:
    try:
        found = prompts.points(text)
    except ValueError:
        return
    assert len(found) == text.count(";") + 1
    for point, part in zip(found, text.split(";"), strict=True):
        label, _, places = part.partition(":")
        assert point == Point(int(label.strip() == "pos"), *map(float, places.split(",")))
        assert math.isfinite(point.x) and math.isfinite(point.y)


@quick
@given(likely)
def test_boxes_of_any_text_have_an_area_or_are_a_value_error(text: str) -> None:
    try:
        found = prompts.boxes(text)
    except ValueError:
        return
    assert found and all(box.w > 0 and box.h > 0 and math.isfinite(box.x + box.y) for box in found)


@quick
@given(likely | likely.map(lambda text: text.partition(":")[2]), st.sampled_from(["x,y", "x1,y1,x2,y2"]))
def test_numbers_of_any_text_are_as_many_as_the_form_says_or_a_value_error(text: str, form: str) -> None:
    try:
        found = marks.numbers(text, form)
    except ValueError:
        return
    assert found == [float(part) for part in text.split(",")] and len(found) == len(form.split(","))


leaf = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), words, st.sampled_from([0, 1, 2]))
anything = st.recursive(leaf, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner), max_leaves=9)
mark = st.fixed_dictionaries(
    {"type": st.sampled_from([*marks.TYPES, "polygon"]) | leaf, "data": st.lists(leaf, max_size=5) | leaf},
    optional={"label": leaf, "frame": leaf, "object": leaf},
)
PROMPT = ("frame", "object", "text", "boxes", "points", "mask")
prompt = st.fixed_dictionaries({}, optional=dict.fromkeys(PROMPT, leaf | likely))
files = st.one_of(anything, st.lists(mark | prompt, max_size=3), st.dictionaries(words, st.lists(mark, max_size=2)))


@quick
@given(files)
def test_any_document_is_marks_or_a_value_error(document: object) -> None:
    try:
        found = asked_by_name(document, Path())  # type: ignore[arg-type]
    except ValueError as error:
        assert str(error)
        return
    for one in found if isinstance(found, list) else (one for each in found.values() for one in each):
        assert all(text.strip() for text in one.marks.texts)
        assert all(box.w > 0 and box.h > 0 and box.label in (0, 1) for box in one.marks.boxes)
        assert all(math.isfinite(point.x + point.y) for point in one.marks.points)
        assert one.frame >= 0


# ------------------------------------------------------------------ which pipeline takes it


@dataclass(frozen=True)
class Words:
    text: str | None = None
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Clicks:
    boxes: tuple[Box, ...] = ()
    points: tuple[Point, ...] = ()
    mask: str | None = None


BOTH = {"image": Words, "interactive": Clicks}


def test_the_first_pipeline_that_takes_all_that_is_given_gets_it() -> None:
    for ask, pipeline, asked in (
        (Ask.of("star"), "image", [Words("star")]),
        (
            Ask.of(["star", "ring"], [[0, 0, 5, 5]]),
            "image",
            [Words(w, (Box(1, 0, 0, 5, 5),)) for w in ("star", "ring")],
        ),
        (Ask.of(boxes=[[0, 0, 5, 5]], box_labels=[0]), "image", [Words(boxes=(Box(0, 0, 0, 5, 5),))]),
        (Ask.of(points=[[3, 4]], point_labels=[0]), "interactive", [Clicks(points=(Point(0, 3, 4),))]),
        (Ask.of(boxes=[[0, 0, 5, 5]], mask="m.png"), "interactive", [Clicks((Box(1, 0, 0, 5, 5),), mask="mask")]),
    ):
        assert taking(BOTH, ask) == pipeline
        assert ask.prompts(BOTH[pipeline], "instances") == asked
    two = Ask.of(boxes=[[0, 0, 5, 5], [5, 5, 9, 9]])
    each = [Clicks((Box(1, 0, 0, 5, 5),)), Clicks((Box(1, 5, 5, 4, 4),))]
    assert two.prompts(Clicks, "masks") == each and len(two.prompts(Clicks, "instances")) == 1
    assert Ask.of(mask="m.png").files == {"mask": Path("m.png")} and Ask.of("star").files == {}


@pytest.mark.parametrize(
    ("kinds", "ask", "message"),
    [
        ({"image": Words}, Ask.of(), "nothing is asked for: give text, boxes or both"),
        ({"image": Words}, Ask.of(points=[[1, 2]]), "this model takes no points; pipeline image takes text, boxes"),
        (
            BOTH,
            Ask.of("star", points=[[1, 2]]),
            "this model takes no text and points together; pipeline image takes text, boxes; "
            "pipeline interactive takes boxes, points, mask",
        ),
    ],
)
def test_what_no_pipeline_takes_is_refused_with_what_each_takes(kinds: dict[str, type], ask: Ask, message: str) -> None:
    with pytest.raises(BuildError) as error:
        taking(kinds, ask)
    assert str(error.value) == message

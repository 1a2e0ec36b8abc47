"""Marks: prompts as annotation programs store them and as options give them. Takes JSON or a text, returns prompts.

A mark file is a list for all pictures, or an object of lists, by the name of the picture's file:

    [{"type": "point", "data": [x, y], "label": 1}, {"type": "rectangle", "data": [x1, y1, x2, y2], "label": 0},
     {"type": "text", "data": "truck"}]

`label` is 1 (meant, also without it) or 0 (not meant). The format is that of AnyLabeling and samexporter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sam3_build.documents import Json
from sam3_build.errors import did_you_mean
from sam3_build.pipeline.prompts import COMMA, NUMBER, Box, Point

# type -> how many numbers its data has; None of words.
TYPES: Mapping[str, int | None] = {"point": 2, "rectangle": 4, "text": None}


@dataclass(frozen=True)
class Marks:
    """What is marked in one picture: each text is looked for, with all boxes and points."""

    texts: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    points: tuple[Point, ...] = ()

    def __add__(self, other: Marks) -> Marks:
        """Return the marks of both."""
        return Marks(self.texts + other.texts, self.boxes + other.boxes, self.points + other.points)


def marks(document: Json) -> Marks:
    """Return what a list of marks gives. ValueError names the first that is wrong, by its position."""
    if isinstance(document, str) or not isinstance(document, Sequence):
        raise ValueError(f"a list of marks is expected, not {_shown(document)}")
    found = Marks()
    for position, mark in enumerate(document):
        try:
            found += _mark(mark)
        except ValueError as error:
            raise ValueError(f"mark {position}: {error}") from None
    return found


def marks_by_picture(document: Json) -> Marks | Mapping[str, Marks]:
    """Return what a mark file gives: marks for all pictures, or by the name of the picture's file. ValueError as above.

    A name may be a path, of which the last part counts.
    """
    if not isinstance(document, Mapping):
        return marks(document)
    found: dict[str, Marks] = {}
    for path, listed in document.items():
        name = path.replace("\\", "/").rpartition("/")[2]
        if name in found:
            raise ValueError(f"{name} is there twice")
        try:
            found[name] = marks(listed)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return found


def box(edges: Sequence[float], label: object = 1) -> Box:
    """Return the box with these edges: left, top, right, bottom in pixels. ValueError when it is none."""
    if len(edges) != 4 or not all(map(math.isfinite, edges)):
        raise ValueError(f"{list(edges)} is no box: it has left, top, right, bottom in pixels")
    x0, y0, x1, y1 = edges
    if x1 <= x0 or y1 <= y0:
        raise ValueError(f"{list(edges)} has no area: right and bottom must be beyond left and top")
    return Box(_label(label), x0, y0, x1 - x0, y1 - y0)


def point(place: Sequence[float], label: object = 1) -> Point:
    """Return the point there: x, y in pixels. ValueError when it is none."""
    if len(place) != 2 or not all(map(math.isfinite, place)):
        raise ValueError(f"{list(place)} is no point: it has x, y in pixels")
    return Point(_label(label), *place)


def numbers(text: str, form: str) -> list[float]:
    """Return as many numbers as `form` names, such as `x,y`, from a text. ValueError when they are others."""
    match = re.fullmatch(COMMA.join([NUMBER] * len(form.split(","))), text.strip())
    if match is None:
        raise ValueError(f"{_shown(text)} is not {form!r} (pixels)")
    return [float(number) for number in match.groups()]


def _mark(mark: Json) -> Marks:
    if not isinstance(mark, Mapping):
        raise ValueError(f"an object with type and data is expected, not {_shown(mark)}")
    kind, data, label = mark.get("type"), mark.get("data"), mark.get("label", 1)
    if not isinstance(kind, str) or kind not in TYPES:
        raise ValueError(f"there is no type {_shown(kind)}{did_you_mean(str(kind), TYPES)}")
    if kind == "text":
        if not isinstance(data, str) or not data.strip():
            raise ValueError(f"the data of a text is words, not {_shown(data)}")
        return Marks(texts=(data,))
    if isinstance(data, str) or not isinstance(data, Sequence):
        raise ValueError(f"the data of a {kind} is {TYPES[kind]} numbers, not {_shown(data)}")
    values = [_number(value) for value in data]
    if kind == "point":
        return Marks(points=(point(values, label),))
    return Marks(boxes=(box(values, label),))


def _number(value: Json) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{_shown(value)} is no number")
    try:
        return float(value)
    except OverflowError:  # JSON's whole numbers have no end
        raise ValueError(f"{_shown(value)} is too large") from None


def _label(label: object) -> int:
    if label == 0 or label == 1:  # of whatever type of number
        return int(label == 1)
    raise ValueError(f"the label is {_shown(label)}; 1 is meant, 0 is not meant")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]} ..."

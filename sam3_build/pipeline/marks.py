"""Marks: prompts as annotation programs store them and as options give them. Takes JSON or a text, returns prompts.

A prompt file is a list for all pictures and clips, or an object of lists, by the name of the picture's or clip's file:

    [{"type": "point", "data": [x, y], "label": 1}, {"type": "rectangle", "data": [x1, y1, x2, y2], "label": 0},
     {"type": "text", "data": "truck"},
     {"frame": 2, "object": 7, "points": "pos:x,y;neg:x,y", "boxes": "pos:x,y,w,h", "mask": "cup.png"}]

What has a `type` is a mark, in the format of AnyLabeling and samexporter; `label` is 1 (meant, also without it) or 0
(not meant). Marks of one `object` on one `frame` are one prompt, and so are those without an `object`. What has no
`type` is a prompt of its own, in the words of a manifest's samples. Without `frame` it is on the first one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from sam3_build.documents import Json
from sam3_build.errors import did_you_mean
from sam3_build.pipeline.prompts import COMMA, KEYS, NUMBER, Box, Point, boxes, points

Value = TypeVar("Value")

# What says of an entry where it is.
PLACE = ("frame", "object")

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


@dataclass(frozen=True)
class Asked:
    """A prompt for one object. frame: of a clip; object: None of a new one, or of marks that name none."""

    marks: Marks
    mask: Path | None = None
    frame: int = 0
    object: int | None = None


def asked(document: Json, folder: Path, first: Asked | None = None) -> list[Asked]:
    """Return what a list of marks and prompts asks for, in order; that of marks where the first of them stands.

    folder: of the files that it names; first: what marks without an object on its frame are joined with
    ValueError names the entry that is wrong, by its position.
    """
    if isinstance(document, str) or not isinstance(document, Sequence):
        raise ValueError(f"a list of marks is expected, not {_shown(document)}")
    found: dict[tuple[int, int | None] | int, Asked] = {(first.frame, None): first} if first else {}
    for position, entry in enumerate(document):
        try:
            own, is_mark = _asked(entry, folder)
        except ValueError as error:
            raise ValueError(f"mark {position}: {error}") from None
        key = (own.frame, own.object) if is_mark else position
        found[key] = replace(found[key], marks=found[key].marks + own.marks) if key in found else own
    return list(found.values())


def asked_by_name(document: Json, folder: Path, first: Asked | None = None) -> list[Asked] | Mapping[str, list[Asked]]:
    """Return what a prompt file asks for: of all pictures, or by the name of a picture's or clip's file; see `asked`.

    A name may be a path, of which the last part counts.
    """
    if not isinstance(document, Mapping):
        return asked(document, folder, first)
    found: dict[str, list[Asked]] = {}
    for path, listed in document.items():
        name = path.replace("\\", "/").rpartition("/")[2]
        if name in found:
            raise ValueError(f"{name} is there twice")
        try:
            found[name] = asked(listed, folder, first)
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


def _asked(entry: Json, folder: Path) -> tuple[Asked, bool]:
    """Return what an entry asks for, and whether it is a mark."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"an object with type and data is expected, not {_shown(entry)}")
    is_mark = "type" in entry
    for key in () if is_mark else entry:  # programs write more of a mark than anybody reads
        if key not in PLACE + KEYS:
            raise ValueError(f"there is no {key!r}{did_you_mean(key, PLACE + KEYS)}")
    frame, which = (None if (value := entry.get(key)) is None else _whole(key, value) for key in PLACE)
    mask = None if is_mark else _text("mask", entry.get("mask"))
    own = _mark(entry) if is_mark else _prompt(entry)
    return Asked(own, None if mask is None else folder / mask, frame or 0, which), is_mark


def _prompt(entry: Mapping[str, Json]) -> Marks:
    if not any(entry.get(key) for key in KEYS):
        raise ValueError(f"nothing is asked for: give {', '.join(KEYS[:-1])} or {KEYS[-1]}")
    words = _text("text", entry.get("text"))
    return Marks(() if words is None else (words,), _read("boxes", boxes, entry), _read("points", points, entry))


def _read(key: str, parse: Callable[[str], tuple[Value, ...]], entry: Mapping[str, Json]) -> tuple[Value, ...]:
    text = _text(key, entry.get(key))
    return () if text is None else parse(text)


def _text(key: str, value: Json) -> str | None:
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise ValueError(f"{key} is {_shown(value)}; give text, as the option takes it")
    return value


def _whole(key: str, value: Json) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{key} is {_shown(value)}; give a whole number from 0 on")
    return value


def _mark(mark: Mapping[str, Json]) -> Marks:
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

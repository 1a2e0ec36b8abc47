"""Prompts: boxes, points and how people write them; and what a family may ask a sample for. No files, no arrays.

A family declares a frozen dataclass for each pipeline (`Pipeline.prompts`), with some of these fields. Each has a
default, which means that it is not given:

    text: str | None                a noun phrase
    boxes: tuple[Box, ...]
    points: tuple[Point, ...]
    mask: str | None                the role of a picture file, as large as the sample's picture; what is not 0 is meant
    prompts: tuple[<FramePrompt>, ...]   only of a pipeline of clips: the prompts on frames. Such a one has some of the
                                    fields above, `frame: int` (in the order in which frames are run, also
                                    of a reversed clip), `object: int | None`, and `remove: int | None` (the
                                    object that is removed) where objects can be
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import get_args, get_type_hints

from sam3_build.documents import Json, value_of

NUMBER = r"(-?[0-9]+(?:\.[0-9]+)?)"
COMMA = r"\s*,\s*"

# The keys of a sample, or of a prompt on a frame, that say what is meant; the others say where.
KEYS = ("text", "boxes", "points", "mask")
FRAME_KEYS = (*KEYS, "remove")


@dataclass(frozen=True)
class Box:
    """A box in pixels of the picture, as viewers show it: top left corner, width, height.

    label: 1 is meant (positive), 0 is not (negative)
    """

    label: int
    x: float
    y: float
    w: float
    h: float


@dataclass(frozen=True)
class Point:
    """A point in pixels of the picture, as viewers show it. label: 1 is meant (positive), 0 is not (negative)."""

    label: int
    x: float
    y: float


def boxes(text: str) -> tuple[Box, ...]:
    """Return the boxes that a text such as `pos:40,40,30,30;neg:90,80,20,20` gives. ValueError says what is wrong."""
    found = []
    for part, label, numbers in _parts(text, 4, "box", "x,y,w,h"):
        box = Box(label, *numbers)
        if box.w <= 0 or box.h <= 0:
            raise ValueError(f"box {part!r} has no area; width and height must be above 0")
        found.append(box)
    return tuple(found)


def points(text: str) -> tuple[Point, ...]:
    """Return the points that a text such as `pos:40,40;neg:90,80` gives. ValueError says what is wrong."""
    return tuple(Point(label, *numbers) for _, label, numbers in _parts(text, 2, "point", "x,y"))


def _parts(text: str, count: int, what: str, form: str) -> list[tuple[str, int, list[float]]]:
    parts = []
    for part in text.split(";"):
        match = re.fullmatch(rf"(pos|neg)\s*:\s*{COMMA.join([NUMBER] * count)}", part.strip())
        numbers = [float(number) for number in match.groups()[1:]] if match else []
        if match is None or not all(map(math.isfinite, numbers)):
            raise ValueError(f"{what} {part!r} is not 'pos:{form}' or 'neg:{form}' (pixels, joined by ';')")
        parts.append((part, int(match[1] == "pos"), numbers))
    return parts


def boxes_of(document: Mapping[str, Json]) -> tuple[Box, ...]:
    """Return the boxes of prompts, or of a prompt on a frame, by their document."""
    given = document.get("boxes")
    listed = given if isinstance(given, Sequence) else ()
    return tuple(value_of(Box, box) for box in listed if isinstance(box, Mapping))


def points_of(document: Mapping[str, Json]) -> tuple[Point, ...]:
    """Return the points of prompts, or of a prompt on a frame, by their document."""
    given = document.get("points")
    listed = given if isinstance(given, Sequence) else ()
    return tuple(value_of(Point, point) for point in listed if isinstance(point, Mapping))


def frame_prompts(prompts: type) -> type | None:
    """Return the dataclass of prompts on frames, of a pipeline's; None of one that takes pictures."""
    if "prompts" not in {field.name for field in fields(prompts)}:
        return None
    kind = get_args(get_type_hints(prompts)["prompts"])[0]
    assert isinstance(kind, type)
    return kind


def taken(prompts: type) -> tuple[str, ...]:
    """Return which of KEYS a pipeline takes; of one of clips, which of FRAME_KEYS a prompt on a frame has."""
    names = {field.name for field in fields(frame_prompts(prompts) or prompts)}
    return tuple(key for key in FRAME_KEYS if key in names)


def reordered(document: Mapping[str, Json]) -> Mapping[str, Json] | None:
    """Return prompts on frames with the objects of each frame in the opposite order; None where no frame has two.

    Prompts for one object stay in their order: a click refines the one before it, and an object may come back.
    """
    given = document.get("prompts")
    if not isinstance(given, Sequence) or isinstance(given, str):
        return None
    frames: dict[Json, dict[Json, list[Json]]] = {}
    for prompt in given:
        if isinstance(prompt, Mapping):
            which = prompt.get("object", prompt.get("remove"))
            frames.setdefault(prompt.get("frame"), {}).setdefault(which, []).append(prompt)
    if all(len(objects) < 2 for objects in frames.values()):
        return None
    turned = [prompt for objects in frames.values() for own in reversed(objects.values()) for prompt in own]
    return {**document, "prompts": turned}


def in_words(keys: tuple[str, ...]) -> str:
    """Return what a prompt may consist of: `text, boxes or both`."""
    what = [key for key in keys if key != "remove"]
    return f"{', '.join(what)} or both" if len(what) == 2 else ", ".join(what)

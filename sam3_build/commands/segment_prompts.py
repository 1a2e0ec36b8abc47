"""Prompts of `sam3-build segment`: takes what was typed and a mark file, returns what is asked of each picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sam3_build.errors import BuildError, did_you_mean
from sam3_build.pipeline import prompts
from sam3_build.pipeline.marks import Marks, box, marks_by_picture, numbers, point
from sam3_build.runtime.ask import Ask

Value = TypeVar("Value")


@dataclass(frozen=True)
class Typed:
    """Prompts as they were typed.

    boxes:   `pos:x,y,w,h;neg:...`; corners: each `x1,y1,x2,y2`
    points:  `pos:x,y;neg:...`; places: each `x,y`, which is meant
    mask:    a picture file; marks: a mark file (see `pipeline/marks.py`)
    """

    text: Sequence[str] = ()
    boxes: str | None = None
    corners: Sequence[str] = ()
    points: str | None = None
    places: Sequence[str] = ()
    mask: Path | None = None
    marks: Path | None = None


def asks(typed: Typed, pictures: Sequence[Path]) -> list[Ask]:
    """Return what is asked of each picture: what was typed, and its marks of the file. BuildError names the option."""
    boxes = () if typed.boxes is None else _read("--boxes", prompts.boxes, typed.boxes)
    boxes += tuple(_read("--box", lambda text: box(numbers(text, "x1,y1,x2,y2")), text) for text in typed.corners)
    points = () if typed.points is None else _read("--points", prompts.points, typed.points)
    points += tuple(_read("--point", lambda text: point(numbers(text, "x,y")), text) for text in typed.places)
    if typed.mask and len(pictures) > 1:
        raise BuildError(f"--mask {typed.mask} is of one picture, and {len(pictures)} are given")
    common = Marks(tuple(typed.text), boxes, points)
    in_file = _marks(typed.marks) if typed.marks else Marks()
    found = []
    for picture in pictures:
        ask = Ask(common + _of_picture(in_file, picture, typed.marks), typed.mask)
        if not ask.keys:
            options = "--text, --boxes, --box, --points, --point, --mask or --prompts"
            raise BuildError(f"nothing is asked for in {picture}: give {options}")
        found.append(ask)
    return found


def _marks(file: Path) -> Marks | Mapping[str, Marks]:
    try:
        return _read(f"--prompts {file}", marks_by_picture, json.loads(file.read_bytes()))
    except OSError as error:
        raise BuildError(f"--prompts: {file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BuildError(f"--prompts: {file} is no JSON: {error}") from error


def _of_picture(marks: Marks | Mapping[str, Marks], picture: Path, file: Path | None) -> Marks:
    if isinstance(marks, Marks):
        return marks
    if picture.name not in marks:
        raise BuildError(f"--prompts {file} says nothing of {picture.name}{did_you_mean(picture.name, marks)}")
    return marks[picture.name]


def _read(option: str, parse: Callable[..., Value], given: object) -> Value:
    try:
        return parse(given)
    except ValueError as error:
        raise BuildError(f"{option}: {error}") from error

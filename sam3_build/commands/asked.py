"""What is asked of pictures and clips: takes what was typed and a prompt file, returns prompts. Errors name options."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sam3_build.errors import BuildError, did_you_mean
from sam3_build.pipeline import prompts
from sam3_build.pipeline.marks import Asked, Marks, asked_by_name, box, numbers, point

Value = TypeVar("Value")


@dataclass(frozen=True)
class Typed:
    """Prompts as they were typed, all of them one.

    boxes:   `pos:x,y,w,h;neg:...`; corners: each `x1,y1,x2,y2`
    points:  `pos:x,y;neg:...`; places: each `x,y`, which is meant
    mask:    a picture file; frame: of a clip, the one that these are on
    file:    a file of more prompts (see `pipeline/marks.py`)
    """

    text: Sequence[str] = ()
    boxes: str | None = None
    corners: Sequence[str] = ()
    points: str | None = None
    places: Sequence[str] = ()
    mask: Path | None = None
    frame: int = 0
    file: Path | None = None


def asked(typed: Typed, names: Sequence[str]) -> list[list[Asked]]:
    """Return what is asked of each picture or clip, by their names: what was typed, and what the file says of it.

    BuildError names the option, or the entry of the file.
    """
    boxes = () if typed.boxes is None else _read("--boxes", prompts.boxes, typed.boxes)
    boxes += tuple(_read("--box", lambda text: box(numbers(text, "x1,y1,x2,y2")), text) for text in typed.corners)
    points = () if typed.points is None else _read("--points", prompts.points, typed.points)
    points += tuple(_read("--point", lambda text: point(numbers(text, "x,y")), text) for text in typed.places)
    if typed.mask and len(names) > 1:
        raise BuildError(f"--mask {typed.mask} is of one picture, and {len(names)} are given")
    own = Asked(Marks(tuple(typed.text), boxes, points), typed.mask, typed.frame)
    first = own if own.mask or own.marks != Marks() else None
    found = _in_file(typed.file, first) if typed.file else [first] if first else []
    each = [_of(found, name, typed.file) for name in names]
    for name, prompted in zip(names, each, strict=True):
        if not prompted:
            options = "--text, --boxes, --box, --points, --point, --mask or --prompts"
            raise BuildError(f"nothing is asked for in {name}: give {options}")
    return each


def _in_file(file: Path, first: Asked | None) -> list[Asked] | Mapping[str, list[Asked]]:
    try:
        document = json.loads(file.read_bytes())
    except OSError as error:
        raise BuildError(f"--prompts: {file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BuildError(f"--prompts: {file} is no JSON: {error}") from error
    return _read(f"--prompts {file}", lambda given: asked_by_name(given, file.parent, first), document)


def _of(found: list[Asked] | Mapping[str, list[Asked]], name: str, file: Path | None) -> list[Asked]:
    if isinstance(found, list):
        return found
    if name not in found:
        raise BuildError(f"--prompts {file} says nothing of {name}{did_you_mean(name, found)}")
    return found[name]


def _read(option: str, parse: Callable[..., Value], given: object) -> Value:
    try:
        return parse(given)
    except ValueError as error:
        raise BuildError(f"{option}: {error}") from error

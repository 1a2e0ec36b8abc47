"""Prompts of `sam3-build track`: takes what was typed and a file of prompts, returns what is asked, frame by frame."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam3_build.documents import Json
from sam3_build.errors import BuildError, did_you_mean
from sam3_build.pipeline import prompts
from sam3_build.pipeline.prompts import Box, Point

KEYS = ("frame", "object", "points", "boxes", "mask")


@dataclass(frozen=True)
class Typed:
    """Prompts as they were typed, on one frame: each box is an object, all points are one, and a mask is one.

    points: `pos:x,y;neg:x,y`; boxes: `pos:x,y,w,h`; file: a JSON list of objects with some of KEYS
    """

    points: str | None = None
    boxes: str | None = None
    mask: Path | None = None
    frame: int = 0
    file: Path | None = None


@dataclass(frozen=True)
class Asked:
    """One prompt. object: None for a new one."""

    frame: int
    object: int | None
    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()
    mask: Path | None = None

    def words(self) -> Mapping[str, Any]:
        """Return it as `Track.add` takes it."""
        found: dict[str, Any] = {"frame": self.frame, "object": self.object, "mask": self.mask}
        if self.points:
            found["points"] = [[point.x, point.y] for point in self.points]
            found["point_labels"] = [point.label for point in self.points]
        if self.boxes:
            found["boxes"] = [[box.x, box.y, box.x + box.w, box.y + box.h] for box in self.boxes]
            found["box_labels"] = [box.label for box in self.boxes]
        return found


def asked(typed: Typed) -> list[Asked]:
    """Return all prompts, those of the file last. BuildError names the option, or the entry of the file."""
    found: list[Asked] = []
    if typed.points is not None:
        found.append(Asked(typed.frame, None, points=_points("--points", typed.points)))
    if typed.boxes is not None:
        found += [Asked(typed.frame, None, boxes=(box,)) for box in _boxes("--boxes", typed.boxes)]
    if typed.mask is not None:
        found.append(Asked(typed.frame, None, mask=typed.mask))
    if typed.file is not None:
        found += _in_file(typed.file)
    if not found:
        raise BuildError("nothing is asked for: give --points, --boxes, --mask or --prompts")
    return found


def _in_file(file: Path) -> list[Asked]:
    try:
        document = json.loads(file.read_bytes())
    except OSError as error:
        raise BuildError(f"--prompts: {file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BuildError(f"--prompts: {file} is no JSON: {error}") from error
    if not isinstance(document, list) or not document:
        raise BuildError(f"--prompts {file}: give a list of prompts, each with {', '.join(KEYS)}")
    return [_entry(f"--prompts {file}[{i}]", entry, file.parent) for i, entry in enumerate(document)]


def _entry(where: str, entry: Json, folder: Path) -> Asked:
    if not isinstance(entry, dict):
        raise BuildError(f"{where}: {entry!r} is no prompt: give an object with {', '.join(KEYS)}")
    for key in entry:
        if key not in KEYS:
            raise BuildError(f"{where}: there is no {key!r}{did_you_mean(key, KEYS)}")
    points, boxes, mask = entry.get("points"), entry.get("boxes"), entry.get("mask")
    return Asked(
        _number(f"{where}.frame", entry.get("frame", 0)),
        None if entry.get("object") is None else _number(f"{where}.object", entry["object"]),
        () if points is None else _points(f"{where}.points", points),
        () if boxes is None else _boxes(f"{where}.boxes", boxes),
        None if mask is None else folder / _text(f"{where}.mask", mask),
    )


def _points(where: str, text: Json) -> tuple[Point, ...]:
    try:
        return prompts.points(_text(where, text))
    except ValueError as error:
        raise BuildError(f"{where}: {error}") from error


def _boxes(where: str, text: Json) -> tuple[Box, ...]:
    try:
        return prompts.boxes(_text(where, text))
    except ValueError as error:
        raise BuildError(f"{where}: {error}") from error


def _text(where: str, value: Json) -> str:
    if not isinstance(value, str):
        raise BuildError(f"{where} is {value!r}; give text, as for --points and --boxes")
    return value


def _number(where: str, value: Json) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BuildError(f"{where} is {value!r}; give a whole number from 0 on")
    return value

"""Takes a sample, returns its prompt in words: of a concept, or of one object."""

from __future__ import annotations

from collections.abc import Mapping

from sam3_build.pipeline.prompts import boxes_of, points_of
from sam3_build.spec import Json


def prompt(prompts: Mapping[str, Json]) -> str:
    """Return prompts, given as their document, in words; boxes are drawn solid (positive) or dashed (negative)."""
    text = prompts.get("text")
    parts = [f'"{" ".join(text.split())}"'] if isinstance(text, str) and text else []
    labels = [box.label for box in boxes_of(prompts)]
    for label, like, form in ((1, "like", "boxed"), (0, "not like", "dashed")):
        boxes = labels.count(label)
        if boxes:
            parts.append(f"{like} the {form} one" if boxes == 1 else f"{like} the {boxes} {form} ones")
    return ", ".join(parts)


def object_prompt(prompts: Mapping[str, Json]) -> str:
    """Return what one object is prompted by, given as a document: `2 points, a box`."""
    points = len(points_of(prompts))
    given = {
        "1 point" if points == 1 else f"{points} points": points,
        "a box": boxes_of(prompts),
        "a mask": prompts.get("mask"),
    }
    return ", ".join(words for words, value in given.items() if value)

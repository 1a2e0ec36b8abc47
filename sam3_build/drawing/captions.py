"""Takes a sample, returns its prompt in words."""

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
    if points := points_of(prompts):
        parts.append("1 point" if len(points) == 1 else f"{len(points)} points")
    return ", ".join([*parts, *(["a mask"] if prompts.get("mask") else [])])

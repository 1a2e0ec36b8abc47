"""What may be asked of one object on a picture without an earlier mask; which cases samples become. No arrays."""

from __future__ import annotations

from dataclasses import dataclass

from sam3_build.pipeline.interactive import NO_POINT, Click, ObjectPrompts, Prompted
from sam3_build.pipeline.prompts import Box, Point
from sam3_build.spec import CaseRequest, CaseShape

# The layout whose decoder takes an earlier mask, those of all others taking Clicks; and that whose prompt encoder is a
# file of its own.
PREVIOUS_MASK, SEPARATE = "previous_mask", "separate_prompt_encoder"


@dataclass(frozen=True)
class Clicks:
    """What may be asked of a picture without an earlier mask: one object, by points, a box around it, or both."""

    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()


def points_of(prompts: Prompted) -> list[Click]:
    """Return the points of a prompt; of a mask alone one that is none, as transformers has it."""
    own: list[Click] = [(point.x, point.y, float(point.label)) for point in prompts.points]
    return own if own or prompts.boxes else [(0.0, 0.0, NO_POINT)]


def case_shapes(request: CaseRequest) -> tuple[CaseShape, ...]:
    """Return every sample alone, and two of them that have equally many points and boxes, or one twice, as a batch."""
    asked = [prompts for prompts in request.prompts if isinstance(prompts, Clicks | ObjectPrompts)]
    counts = [(len(points_of(prompts)), len(prompts.boxes)) for prompts in asked]
    alone = [(f"sample{number}", (i,), counts[i]) for i, number in enumerate(request.numbers)]
    together = []
    if counts:
        most = max(counts, key=counts.count)
        alike = [i for i, count in enumerate(counts) if count == most]
        together = [("batch", tuple((alike * 2)[:2]), most)]
    return tuple(
        CaseShape(name, samples, {"batch": len(samples), **_sizes(request.layout, *count)})
        for name, samples, count in (*alone, *together)
    )


def _sizes(layout: str, points: int, boxes: int) -> dict[str, int]:
    if layout == SEPARATE:  # corners of boxes are points, and one token more stands behind them
        return {"points": points + 2 * boxes, "tokens": points + 2 * boxes + 1}
    return {"point_objects": 1, "objects": 1, "points": points, "num_boxes": boxes}

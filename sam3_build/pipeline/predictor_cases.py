"""What may be asked of a predictor of SAM 2's kind, on pictures and clips; which cases samples become. No arrays."""

from __future__ import annotations

from dataclasses import dataclass

from sam3_build.pipeline.interactive import ObjectPrompts, clicks
from sam3_build.pipeline.prompts import Box, Point
from sam3_build.spec import CaseRequest, CaseShape


@dataclass(frozen=True)
class ObjectPrompt:
    """One object on a frame, by points, a box around it, or both; or by a mask of it."""

    frame: int
    object: int | None = None
    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()
    mask: str | None = None


@dataclass(frozen=True)
class ClipPrompts:
    """What may be asked of a clip: objects, each on as many frames as one likes; more on a frame refine it."""

    prompts: tuple[ObjectPrompt, ...] = ()


def case_shapes(request: CaseRequest) -> tuple[CaseShape, ...]:
    """Return a case for each sample. What calls of a clip's components are as large as, the loop alone knows."""
    if request.pipeline != "interactive":
        return tuple(CaseShape(f"clip{number}", (i,), {}) for i, number in enumerate(request.numbers))
    counts = [max(1, len(clicks(prompts))) for prompts in request.prompts if isinstance(prompts, ObjectPrompts)]
    return tuple(
        CaseShape(f"sample{number}", (i,), {"objects": 1, "points": points})
        for i, (number, points) in enumerate(zip(request.numbers, counts, strict=True))
    )

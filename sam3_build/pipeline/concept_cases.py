"""What may be asked of a picture; which samples run together as one case, and at which sizes. No files, no arrays."""

from __future__ import annotations

from dataclasses import dataclass

from sam3_build.pipeline.prompts import Box
from sam3_build.spec import CaseRequest, CaseShape

# A batched case holds this many samples at most: at full size each costs as much as a case of its own.
LARGEST_BATCH = 4


@dataclass(frozen=True)
class ImagePrompts:
    """What may be asked of a picture. Boxes without a text mean what they show."""

    text: str | None = None
    boxes: tuple[Box, ...] = ()


def case_shapes(request: CaseRequest) -> tuple[CaseShape, ...]:
    """Return every sample alone, then samples together in one batch, so that padding is measured too.

    `meta`, as in Meta's code, always runs the geometry encoder: without boxes it gets one ignored box, and its CLS
    token joins the prompt. `hf`, as in transformers, leaves it out; then samples with boxes and without make a batch
    each. Where the encoder is no component, only a part of one, that gets the ignored box in any case. A batch has
    `padding` boxes more than any of its samples, ignored ones, and never fewer than two rows.
    """
    boxes = [len(prompts.boxes) for prompts in request.prompts if isinstance(prompts, ImagePrompts)]
    always = request.reference == "meta" or request.layout != "v1"
    with_boxes = [i for i, count in enumerate(boxes) if count or always]
    without = [i for i in range(len(boxes)) if i not in with_boxes]
    cases = [
        _case(request, f"sample{request.numbers[i]}", [i], max(count, int(i in with_boxes)))
        for i, count in enumerate(boxes)
    ]
    for name, group in (("batch", with_boxes), ("batch_without_boxes", without)):
        if group:
            together = (group * 2)[: max(2, min(len(group), LARGEST_BATCH))]
            most = max(boxes[i] for i in together) + request.padding
            cases.append(_case(request, name, together, max(1, most) if group is with_boxes else 0))
    return tuple(cases)


def _case(request: CaseRequest, name: str, samples: list[int], boxes: int) -> CaseShape:
    sizes = {"batch": len(samples)}
    if boxes:
        sizes["num_boxes"] = boxes
    if request.layout == "v1" and "text_len" in request.static:
        sizes["prompt_len"] = request.static["text_len"] + (boxes + 1 if boxes else 0)
    return CaseShape(name, tuple(samples), sizes)

"""Cases of SAM 3, of samples as tests write them.

A sample is {"image": role, "text": None or words, "boxes": [{"label", "xywh"}]}.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from sam3_build.documents import document_of
from sam3_build.families.sam3_image.prompts import make_cases
from sam3_build.params import SampleParams
from sam3_build.pipeline.cases import Case, PromptRequest
from sam3_build.pipeline.concept_cases import ImagePrompts
from sam3_build.pipeline.prompts import Box


def prompts_of(sample) -> ImagePrompts:
    return ImagePrompts(sample["text"], tuple(Box(box["label"], *box["xywh"]) for box in sample["boxes"]))


def cases_of(
    reference: str,
    samples: Iterable,
    tokenizer: Path,
    files: Mapping[str, Path],
    config: Mapping,
    layout: str = "v1",
    padding: int = 1,
) -> list[Case]:
    """Return what the family makes of the samples."""
    given = [
        SampleParams(number=i, pictures=(s["image"],), prompts=document_of(prompts_of(s)))
        for i, s in enumerate(samples)
    ]
    return list(make_cases(PromptRequest(layout, "image", reference, given, tokenizer, files, config, padding)))

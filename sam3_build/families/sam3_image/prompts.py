"""What samples and prompts become: SAM 3 pads a text with CLIP's end token, as the tokenizer says."""

from __future__ import annotations

from sam3_build.families.sam3_image.family import FAMILY
from sam3_build.pipeline.concept_prompts import ConceptPrompts

PROMPTS = ConceptPrompts(FAMILY)
make_cases, problems = PROMPTS.make_cases, PROMPTS.problems
picture_arrays, prompt_arrays = PROMPTS.picture_arrays, PROMPTS.prompt_arrays

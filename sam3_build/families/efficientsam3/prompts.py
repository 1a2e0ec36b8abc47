"""What samples and prompts become: as SAM 3's, but that texts are padded with token 0, as the students were trained."""

from __future__ import annotations

from sam3_build.families.efficientsam3.family import FAMILY
from sam3_build.pipeline.concept_prompts import ConceptPrompts

PROMPTS = ConceptPrompts(FAMILY, pad_id=0)
make_cases, problems = PROMPTS.make_cases, PROMPTS.problems
picture_arrays, prompt_arrays = PROMPTS.picture_arrays, PROMPTS.prompt_arrays

"""What samples and prompts become: as SAM 2's, by ImageNet's mean and deviation."""

from __future__ import annotations

from sam3_build.families.edgetam.family import FAMILY
from sam3_build.pipeline.predictor_prompts import PredictorPrompts

PROMPTS = PredictorPrompts(FAMILY, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
make_cases, problems = PROMPTS.make_cases, PROMPTS.problems
picture_arrays, prompt_arrays = PROMPTS.picture_arrays, PROMPTS.prompt_arrays
frame_arrays, clip_arrays = PROMPTS.frame_arrays, PROMPTS.clip_arrays

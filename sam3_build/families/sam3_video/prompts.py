"""What samples and prompts become: values of pictures run from -1 to 1."""

from __future__ import annotations

from sam3_build.families.sam3_video.family import FAMILY
from sam3_build.pipeline.predictor_prompts import PredictorPrompts

PROMPTS = PredictorPrompts(FAMILY, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
make_cases, problems = PROMPTS.make_cases, PROMPTS.problems
picture_arrays, prompt_arrays = PROMPTS.picture_arrays, PROMPTS.prompt_arrays
frame_arrays, clip_arrays = PROMPTS.frame_arrays, PROMPTS.clip_arrays

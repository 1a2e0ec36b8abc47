"""Takes pictures and clips with prompts on them, returns the inputs of networks. No torch."""

from __future__ import annotations

from sam3_build.families.sam2.family import FAMILY
from sam3_build.pipeline.predictor_prompts import PredictorPrompts

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PROMPTS = PredictorPrompts(FAMILY, MEAN, STD, frames={"deepstream": "image"})
make_cases, problems = PROMPTS.make_cases, PROMPTS.problems
picture_arrays, prompt_arrays = PROMPTS.picture_arrays, PROMPTS.prompt_arrays
frame_arrays, clip_arrays = PROMPTS.frame_arrays, PROMPTS.clip_arrays

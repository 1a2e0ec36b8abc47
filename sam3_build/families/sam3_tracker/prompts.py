"""Takes pictures, points, boxes and masks, returns the inputs of networks. No torch."""

from __future__ import annotations

from sam3_build.families.sam3_tracker.family import FAMILY
from sam3_build.pipeline.click_prompts import ClickPrompts
from sam3_build.pipeline.interactive import problems as problems

PROMPTS = ClickPrompts(FAMILY)
make_cases, picture_arrays, prompt_arrays = PROMPTS.make_cases, PROMPTS.picture_arrays, PROMPTS.prompt_arrays

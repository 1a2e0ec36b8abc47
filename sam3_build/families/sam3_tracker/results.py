"""What the mask decoder's outputs mean."""

from __future__ import annotations

from sam3_build.pipeline.click_results import find as find

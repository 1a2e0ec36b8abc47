"""What the decoder's outputs mean."""

from __future__ import annotations

from sam3_build.pipeline.concept_results import find as find

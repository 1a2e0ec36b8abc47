"""Takes what loops and the mask decoder give, returns tracks and masks. No torch."""

from __future__ import annotations

from sam3_build.pipeline.predictor_results import find as find

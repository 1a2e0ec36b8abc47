"""What the outputs of the decoders mean. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sam3_build.pipeline import click_results, concept_results

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sam3_build.pipeline.instances import Instances
    from sam3_build.pipeline.masks import Masks


def find(outputs: Mapping[str, NDArray[np.generic]], size: tuple[int, int], threshold: float) -> Instances | Masks:
    """Return the instances that words and boxes mean, or the masks of one object. size: height, width."""
    if "pred_boxes" in outputs:
        return concept_results.find(outputs, size, threshold)
    return click_results.find(outputs, size, threshold)

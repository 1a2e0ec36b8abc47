"""Takes what loops and the mask decoder give, returns tracks and masks. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sam3_build.pipeline import predictor_results, word_results

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sam3_build.pipeline.masks import Masks
    from sam3_build.pipeline.tracks import Tracks


def find(outputs: Mapping[str, NDArray[np.generic]], size: tuple[int, int], threshold: float) -> Tracks | Masks:
    """Return the tracks of one clip, or the mask of one prompt on a picture. size: its height and width."""
    if "texts" in outputs:
        return word_results.find(outputs, size)
    return predictor_results.find(outputs, size, threshold)

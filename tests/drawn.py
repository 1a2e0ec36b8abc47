"""Pictures that tests draw: stripes with noise, with every grey level, and edges that tell filters apart."""

from __future__ import annotations

import numpy as np
from PIL import Image


def drawn_picture(height: int, width: int) -> Image.Image:
    """Return the same picture for the same size, RGB."""
    noise = np.random.default_rng(height * 1000 + width).integers(0, 60, (height, width, 3))
    rows, columns = np.indices((height, width))
    stripes = np.stack([rows * 7 % 196, columns * 11 % 196, (rows + columns) // 9 % 2 * 195], axis=2)
    return Image.fromarray((stripes + noise).astype(np.uint8))

"""The sheet of `doit verify` in, by its path; docs/demo.png out: the same without noise, and so a third as large.

doit verify && python docs/demo.py artifacts/sam3_mini/pipeline/overlay.fp16.png
"""

from __future__ import annotations

import sys
from pathlib import Path

COLOURS = 80


def main(sheet: Path) -> None:
    """Write the picture."""
    import cv2
    import numpy as np
    from PIL import Image

    with Image.open(sheet) as image:
        smooth = cv2.bilateralFilter(np.asarray(image.convert("RGB")), 7, 60, 3)
    few = Image.fromarray(smooth).quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE)
    few.save(Path(__file__).with_name("demo.png"), optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

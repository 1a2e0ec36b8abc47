"""A picture file in, upright RGB pixels and the network's square input out. Only reads; no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

# What one grey level of 8 bits is in 16: 65535 / 255.
LEVEL = 257


def preprocess(picture: Image.Image, size: int) -> NDArray[np.float32]:
    """Return [3, size, size] float32 in -1 to 1: RGB, squashed with antialiased bilinear filtering, x / 127.5 - 1."""
    import numpy as np
    from PIL import Image

    squashed = picture.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(squashed, np.float32).transpose(2, 0, 1) / np.float32(127.5) - np.float32(1.0)


def read(path: Path) -> Image.Image:
    """Return the picture as RGB, 8 bits, turned as viewers show it: boxes are in the frame that people see.

    BuildError when the file is no picture, is cut short, is larger than Pillow takes, or has no defined white.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture)
            return _eight_bits(upright, path.name).convert("RGB")
    except BuildError:
        raise
    except Exception as error:  # Pillow's decoders raise what they like: SyntaxError, struct.error, OSError ...
        if isinstance(error, OSError) and error.errno is not None:
            raise
        words = " ".join(str(error).replace(str(path), path.name).split()) or type(error).__name__
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise BuildError(
            f"{path.name} cannot be read as a picture: {words}; "
            f"give a whole picture file (PNG, JPEG) of at most {most // 10**6} million pixels"
        ) from error


def _eight_bits(picture: Image.Image, name: str) -> Image.Image:
    """Scale 16-bit grey to 8 bits; Pillow itself would cut everything above 255 to white."""
    import numpy as np
    from PIL import Image

    if not picture.mode.startswith(("I", "F")):
        return picture
    grey = np.asarray(picture)
    if picture.mode == "F" or grey.min() < 0 or grey.max() > 255 * LEVEL:
        raise BuildError(
            f"{name}: its grey values run from {grey.min():g} to {grey.max():g}, and nothing says which of them is "
            "white; save it with 8 or 16 bits a pixel"
        )
    return Image.fromarray(((grey.astype(np.int64) + LEVEL // 2) // LEVEL).astype(np.uint8))

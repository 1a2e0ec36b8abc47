"""Reads picture files as upright RGB pixels, and turns them into a network's input. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

# What the names of pictures in a clip's folder end with.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
# Formats of which Pillow gives whatever has more than 8 bits of grey as 16.
GIVEN_AS_16_BITS = ("PNG", "PPM", "JPEG2000")


def is_video(file: Path) -> bool:
    """Whether a sample's file is one that holds frames, by its name."""
    return file.suffix.lower() not in SUFFIXES


def network_input(
    picture: Image.Image, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]
) -> NDArray[np.float32]:
    """Return [3, height, width] float32: RGB, squashed to `size` (height, width) with antialiased bilinear filtering,
    then (x / 255 - mean) / std by channel.
    """
    import numpy as np
    from PIL import Image

    squashed = picture.convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR)
    spread = np.array(std, np.float64)
    # One division and one subtraction in float32: a mean and std of a half are x / 127.5 - 1 to the last bit.
    scale = (255 * spread).astype(np.float32)[:, None, None]
    offset = (np.array(mean, np.float64) / spread).astype(np.float32)[:, None, None]
    pixels: NDArray[np.float32] = np.asarray(squashed, np.float32).transpose(2, 0, 1) / scale - offset
    return pixels


def frame_input(
    picture: Image.Image, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]
) -> NDArray[np.float32]:
    """Return [3, height, width] float32: RGB, squashed to `size` (height, width) with antialiased bicubic filtering,
    then (x / 255 - mean) / std by channel; to the last bit as SAM 2's own code prepares frames of a clip.
    """
    import numpy as np
    from PIL import Image

    squashed = picture.convert("RGB").resize(size[::-1], Image.Resampling.BICUBIC)
    centre, spread = (np.array(values, np.float32)[:, None, None] for values in (mean, std))
    pixels: NDArray[np.float32] = (np.asarray(squashed).transpose(2, 0, 1) / 255).astype(np.float32)
    return (pixels - centre) / spread


def fitted_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return height and width of a picture whose longer side is brought to `side`; halves are rounded up."""
    scale = side / max(size)
    return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)


def padded_input(picture: Image.Image, side: int, mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """Return [3, side, side] float32: RGB, brought to `fitted_size` with antialiased bilinear filtering, then
    (x - mean) / std by channel, then zeros to the right and below; to the last bit as SAM 1's own code does it.

    mean, std: in grey levels
    """
    import numpy as np
    from PIL import Image

    height, width = fitted_size((picture.height, picture.width), side)
    resized = picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    centre, spread = (np.array(values, np.float32)[:, None, None] for values in (mean, std))
    pixels = np.zeros((3, side, side), np.float32)
    pixels[:, :height, :width] = (np.asarray(resized, np.float32).transpose(2, 0, 1) - centre) / spread
    return pixels


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Return [height, width]: where a picture, turned as viewers show it, is not black. BuildError as `read`."""
    import numpy as np

    where: NDArray[np.bool_] = np.asarray(read(path)).max(axis=2) > 0
    return where


def read(path: Path) -> Image.Image:
    """Return the picture as RGB, 8 bits, turned as viewers show it: boxes are in the frame that people see.

    BuildError when the file is no picture, is cut short, is larger than Pillow takes, or has no defined white.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return upright(picture, path.name)
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


def upright(picture: Image.Image, name: str) -> Image.Image:
    """Return an opened picture as RGB, 8 bits, turned as viewers show it. BuildError when it has no defined white."""
    from PIL import ImageOps

    turned = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I", "F")):
        turned = _eight_bits(turned, picture, name)
    return turned.convert("RGB")


def _eight_bits(upright: Image.Image, file: Image.Image, name: str) -> Image.Image:
    """Scale grey of more bits by the white that its file declares; Pillow itself would cut all above 255 to white."""
    import numpy as np
    from PIL import Image

    grey, white = np.asarray(upright), _white(file)
    if white is None:
        raise BuildError(
            f"{name}: its grey values run from {grey.min():g} to {grey.max():g}, and nothing says which of them is "
            "white; save it with 8 or 16 bits a pixel"
        )
    levels = ((grey.astype(np.int64) * 255 + white // 2) // white).astype(np.uint8)
    return Image.fromarray(255 - levels if _is_negative(file) else levels)


def _white(file: Image.Image) -> int | None:
    """Return the largest grey value that a file can hold; None of signed, 32-bit and real ones: that is no white."""
    from PIL import TiffImagePlugin

    if file.format in GIVEN_AS_16_BITS:
        return 2**16 - 1
    if isinstance(file, TiffImagePlugin.TiffImageFile) and file.mode.startswith("I;16"):
        return int(2 ** file.tag_v2[TiffImagePlugin.BITSPERSAMPLE][0]) - 1
    return None


def _is_negative(file: Image.Image) -> bool:
    """Return whether 0 is white, which Pillow heeds up to 8 bits only."""
    from PIL import TiffImagePlugin

    if not isinstance(file, TiffImagePlugin.TiffImageFile):
        return False
    return bool(file.tag_v2[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] == 0)

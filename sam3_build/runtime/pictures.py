"""Pictures as users give them: takes a path, a PIL image or an array, returns upright RGB and what tells it apart."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError
from sam3_build.pipeline import images

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


@dataclass(frozen=True)
class Given:
    """A picture. identity: equal for equal pictures; of a file, by its name, size and time of change."""

    name: str
    image: Image.Image
    identity: Hashable

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.height, self.image.width


def given(picture: str | Path | Image.Image | NDArray[np.uint8]) -> Given:
    """Return a picture. BuildError for a file that cannot be read, and for an array that is not HWC uint8."""
    import numpy as np
    from PIL import Image

    if isinstance(picture, str | Path):
        path = Path(picture)
        try:
            state = path.stat()
            return Given(path.name, images.read(path), (str(path.absolute()), state.st_size, state.st_mtime_ns))
        except OSError as error:
            raise BuildError(f"{path} cannot be read: {error.strerror}") from error
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
            raise BuildError(
                f"an array of {picture.dtype}{list(picture.shape)} is no picture: give uint8 [height, width, 3], RGB"
            )
        picture = Image.fromarray(picture)
    if not isinstance(picture, Image.Image):
        raise BuildError(f"{type(picture).__name__} is no picture: give a path, a PIL image or a uint8 RGB array")
    try:
        image = images.upright(picture, "the picture")
    except OSError as error:  # Pillow reads the pixels of an opened file when they are asked for
        raise BuildError(f"the picture cannot be read: {error}") from error
    return Given("picture", image, (image.size, hashlib.sha256(image.tobytes()).digest()))

"""Writes frames, one after another, as a video file, and some of them as one picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sam3_build.errors import BuildError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Picture = NDArray[np.uint8]

# VP9 in WebM: browsers show it, and the encoder is free, unlike PyAV's x264 and x265.
SUFFIX, CODEC = ".webm", "libvpx-vp9"

# The sheet: how many frames beside each other, and how wide each is at most.
COLUMNS, WIDTH, GAP = 4, 320, 6


class Film(Protocol):
    """A video file that is being written."""

    def add(self, frame: Picture) -> None:
        """Write the next frame, [height, width, 3] uint8, RGB."""


@contextmanager
def written(path: Path, rate: Fraction) -> Iterator[Film]:
    """Yield what writes a video; the file is there when the block ends, also by an error, if a frame was written.

    rate: frames per second. BuildError where PyAV is not installed, or the file cannot be written.
    """
    if not find_spec("av"):
        raise BuildError("PyAV writes video files: pip install 'sam3-build[video]'")
    import av

    part = path.with_name(f"{path.name}.part")
    film = _Film(part, rate)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield film
        finally:
            if film.close():
                part.replace(path)
    except (OSError, av.FFmpegError) as error:
        part.unlink(missing_ok=True)
        raise BuildError(f"{path} cannot be written: {error.strerror}") from error


class _Film:
    def __init__(self, path: Path, rate: Fraction) -> None:
        self._path, self._rate = path, rate
        self._container: Any = None
        self._stream: Any = None

    def add(self, frame: Picture) -> None:
        import av
        import numpy as np

        # The format has one colour for two by two pixels.
        even = np.pad(frame, [(0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)], mode="edge")
        if self._container is None:
            self._container = av.open(str(self._path), "w", format=SUFFIX[1:])
            self._stream = self._container.add_stream(CODEC, rate=self._rate)
            self._stream.height, self._stream.width = even.shape[:2]
            self._stream.pix_fmt = "yuv420p"
            self._stream.options = {"crf": "24", "b": "0", "deadline": "realtime", "cpu-used": "6"}
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(even), "rgb24")))

    def close(self) -> bool:
        """Finish the file; return whether there is one."""
        if self._container is None:
            return False
        self._container.mux(self._stream.encode())
        self._container.close()
        return True


def sheet(frames: Sequence[tuple[int, Picture]]) -> Picture:
    """Return frames in rows of COLUMNS, each with its number, as one picture [height, width, 3] uint8, RGB."""
    import cv2
    import numpy as np

    height, width = frames[0][1].shape[:2]
    scale = min(1.0, WIDTH / width)
    wide, high = max(1, round(width * scale)), max(1, round(height * scale))
    rows = -(-len(frames) // COLUMNS)
    columns = min(COLUMNS, len(frames))
    page = np.full((rows * (high + GAP) + GAP, columns * (wide + GAP) + GAP, 3), 255, np.uint8)
    for i, (index, frame) in enumerate(frames):
        small = cv2.resize(frame, (wide, high), interpolation=cv2.INTER_AREA)
        place = (5, high - 6)
        cv2.putText(small, str(index), place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(small, str(index), place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
        top, left = GAP + i // COLUMNS * (high + GAP), GAP + i % COLUMNS * (wide + GAP)
        page[top : top + high, left : left + wide] = small
    return page

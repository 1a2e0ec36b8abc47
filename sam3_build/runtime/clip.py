"""Clips as users give them: takes a video file, a folder, pictures or a stream, returns frames as upright RGB."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sam3_build.errors import BuildError
from sam3_build.pipeline import clips, images
from sam3_build.runtime.pictures import given

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    Picture = str | Path | Image.Image | NDArray[np.uint8]
    Video = str | Path | Iterable[Picture]


class Frames(Protocol):
    """Frames in the order in which they are run."""

    @property
    def count(self) -> int:
        """How many there are; 0 of a stream, whose end nobody knows."""

    def at(self, position: int) -> Image.Image:
        """Return any frame; of a stream, none."""

    def each(self) -> Iterator[Image.Image]:
        """Yield them all, each read when it is due."""


@dataclass(frozen=True)
class _OfClip:
    clip: clips.Clip

    @property
    def count(self) -> int:
        return len(self.clip)

    def at(self, position: int) -> Image.Image:
        return self.clip[position]

    def each(self) -> Iterator[Image.Image]:
        return iter(self.clip)


@dataclass(frozen=True)
class _OfPictures:
    pictures: Sequence[Picture]

    @property
    def count(self) -> int:
        return len(self.pictures)

    def at(self, position: int) -> Image.Image:
        return given(self.pictures[position]).image

    def each(self) -> Iterator[Image.Image]:
        return (given(picture).image for picture in self.pictures)


@dataclass(frozen=True)
class _OfStream:
    stream: Iterable[Picture]
    count: int = field(default=0, init=False)

    def at(self, position: int) -> Image.Image:
        raise IndexError(position)

    def each(self) -> Iterator[Image.Image]:
        return (given(picture).image for picture in self.stream)


def frames_of(video: Video, reverse: bool = False) -> Frames:
    """Return the frames of a video file, of a folder of pictures by their names, of a list of pictures, or of a stream.

    A stream is any other iterable of pictures. BuildError for what holds no frames, and for a stream in reverse.
    """
    if isinstance(video, str | Path):
        return _OfClip(_clip(Path(video), reverse))
    if isinstance(video, Sequence) or hasattr(video, "__array__"):
        pictures = list(video)
        if not pictures:
            raise BuildError("a clip without frames was given")
        return _OfPictures(pictures[::-1] if reverse else pictures)
    if reverse:
        raise BuildError("a stream cannot be followed in reverse: give a video file, a folder or a list of pictures")
    return _OfStream(video)


def _clip(path: Path, reverse: bool) -> clips.Clip:
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in images.SUFFIXES)
        if not files:
            raise BuildError(f"{path} holds no picture ({', '.join(images.SUFFIXES)})")
        return clips.Clip(files, len(files), reverse)
    if not path.is_file():
        raise BuildError(f"there is no file {path}")
    if not images.is_video(path):
        raise BuildError(f"{path} is a picture: name a video file, or a folder of pictures")
    return clips.Clip([path], clips.length(path), reverse)

"""Clips: the frames of a sample, from a folder of pictures or a video file, each read when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError
from sam3_build.params import SampleParams
from sam3_build.pipeline import images

# A file may be so much shorter than it says, in seconds, before something is missing.
SLACK = Fraction(1, 2)

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from PIL import Image


@dataclass(frozen=True)
class Clip:
    """The frames of a clip in the order in which they are run: the last one first, where the sample is reversed.

    files: its pictures in order, or one video file
    """

    files: Sequence[Path]
    frames: int
    reverse: bool = False

    @classmethod
    def of(cls, sample: SampleParams, files: Mapping[str, Path]) -> Clip:
        """Return the clip of a sample. files: by role."""
        return cls([files[role] for role in sample.pictures], sample.frames, sample.reverse)

    def __len__(self) -> int:
        """Return how many frames are run."""
        return self.frames

    def __iter__(self) -> Iterator[Image.Image]:
        """Yield each frame, RGB, upright. BuildError for what cannot be read, and for a clip that ends early."""
        if self.is_video and not self.reverse:
            yield from self._decoded()
            return
        yield from (self[i] for i in range(len(self)))

    def __getitem__(self, position: int) -> Image.Image:
        """Return a frame, RGB, upright; BuildError as for all of them. Of a video file, those before it are decoded."""
        at = self.frames - 1 - position if self.reverse else position
        if not self.is_video:
            return images.read(self.files[at])
        return next(frame for i, frame in enumerate(self._decoded()) if i == at)

    @property
    def is_video(self) -> bool:
        """Whether it is one video file."""
        return len(self.files) == 1 and images.is_video(self.files[0])

    def _decoded(self) -> Iterator[Image.Image]:
        (file,) = self.files
        _require_reader(file)
        import av

        count = 0
        try:
            with av.open(str(file)) as container:
                for frame in container.decode(video=0):
                    yield frame.to_image()
                    count += 1
                    if count == self.frames:
                        return
        except av.FFmpegError as error:
            raise BuildError(f"{file.name} cannot be read as a video: {error.strerror}") from error
        raise BuildError(f"{file.name} ends after {count} frames, and {self.frames} are asked for")


def length(file: Path) -> int:
    """Return how many frames a video file has, by its packets; of one that was cut short, how many it says it has.

    Whoever reads these gets an error where they end. BuildError for what is no video, or has no frames.
    """
    _require_reader(file)
    import av

    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                raise BuildError(f"{file.name} holds no video")
            (stream, *_) = container.streams.video
            count, end = 0, Fraction(0)
            for packet in container.demux(stream):
                if packet.size:
                    count += 1
                    end = max(end, ((packet.pts or 0) + (packet.duration or 0)) * stream.time_base)
            missing = _declared(container, stream) - end
    except av.FFmpegError as error:
        raise BuildError(f"{file.name} cannot be read as a video: {error.strerror}") from error
    if not count:
        raise BuildError(f"{file.name} has no frames")
    return count + (round(missing * (stream.average_rate or 0)) if missing > SLACK else 0)


def _declared(container: InputContainer, stream: VideoStream) -> Fraction:
    """Return where a file says that its last frame ends, in seconds; 0 where it does not, or sound may be longer."""
    import av

    if stream.duration and stream.time_base:
        return Fraction(((stream.start_time or 0) + stream.duration) * stream.time_base)
    alone = len(container.streams) == 1
    return Fraction(container.duration or 0, av.time_base) if alone else Fraction(0)


def rate(file: Path) -> Fraction | None:
    """Return how many frames of a video file belong to a second, where it says so. BuildError for what is no video."""
    _require_reader(file)
    import av

    try:
        with av.open(str(file)) as container:
            found: Fraction | None = container.streams.video[0].average_rate
    except (av.FFmpegError, IndexError) as error:
        raise BuildError(f"{file.name} cannot be read as a video") from error
    return found


def _require_reader(file: Path) -> None:
    if not find_spec("av"):
        raise BuildError(f"{file.name} is a video file, and PyAV reads it: pip install 'sam3-build[video]'")

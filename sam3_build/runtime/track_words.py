"""A clip in which texts find objects: takes texts, yields what is found in each frame. The host code is the loop's."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sam3_build.errors import BuildError
from sam3_build.pipeline.masks import boxes_around
from sam3_build.runtime.track import TrackedFrame, require_size

if TYPE_CHECKING:
    from PIL import Image

    from sam3_build.pipeline.loop import Finder
    from sam3_build.pipeline.tracks import Shown
    from sam3_build.runtime.clip import Frames
    from sam3_build.runtime.open_clip import OpenWords


class TextTrack:
    """A clip on its way: iterating gives frame after frame, with the objects that texts found.

    Of a clip whose length is known some frames are held back, until it is known which of their objects stay: an object
    that is removed later is never shown. One thread at a time.
    """

    def __init__(self, opened: OpenWords, frames: Frames, texts: Sequence[str]) -> None:
        """Start before the first frame. BuildError when a text is empty, or there is none."""
        if not texts:
            raise BuildError("nothing is asked for: give a text, or several")
        for i, words in enumerate(texts):
            if not words.strip():
                raise BuildError(f"text[{i}] is empty: say what to look for")
        self._opened, self._frames, self._texts = opened, frames, tuple(dict.fromkeys(texts))
        self._reading = frames.each()
        self._finder: Finder | None = None
        self._waiting: deque[tuple[Image.Image, Mapping[int, Shown]]] = deque()
        self._read = self._given = 0
        self._size: tuple[int, int] | None = None
        self.frame: TrackedFrame | None = None

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.close()

    def close(self) -> None:
        """Stop, and forget all objects."""
        self._waiting.clear()
        self._finder, self._reading = None, iter(())

    @property
    def count(self) -> int:
        """How many frames there are; 0 of a stream."""
        return self._frames.count

    @property
    def texts(self) -> tuple[str, ...]:
        """What is looked for."""
        return self._texts

    @property
    def nbytes(self) -> int:
        """How many bytes are kept: what is remembered of objects, and the masks of frames that are held back."""
        masks = sum(own.mask.nbytes for _, seen in self._waiting for own in seen.values())
        return masks + (self._finder.nbytes if self._finder else 0)

    def __iter__(self) -> Iterator[TrackedFrame]:
        """Return itself: a clip is run once."""
        return self

    def __next__(self) -> TrackedFrame:
        """Return the next frame. BuildError for one that cannot be read, or has another size."""
        while (picture := next(self._reading, None)) is not None:
            finder = self._follow(picture)
            if len(self._waiting) > finder.held_back:
                break
        if not self._waiting:
            raise StopIteration
        self.frame = self._shown(*self._waiting.popleft())
        return self.frame

    def _follow(self, picture: Image.Image) -> Finder:
        self._size = require_size(picture, self._read, self._size)
        if self._finder is None:
            self._finder = self._opened.finder(self._texts, self._frames.count, self._size)
        self._waiting.append((picture, self._finder.follow(self._read, self._opened.frame(picture))))
        self._read += 1
        return self._finder

    def _shown(self, picture: Image.Image, seen: Mapping[int, Shown]) -> TrackedFrame:
        import numpy as np

        assert self._finder is not None
        tracks = self._opened.result(self._finder.found(seen), (picture.height, picture.width))
        assert tracks.texts is not None and tracks.scores is not None
        masks, visible = tracks.masks[0], tracks.visible[0]
        self._given += 1
        return TrackedFrame(
            self._given - 1,
            tracks.ids,
            masks & visible[:, None, None],
            visible,
            boxes_around(masks),
            tracks.scores[0],
            np.asarray(picture),
            tuple(self._texts[which] for which in tracks.texts),
        )

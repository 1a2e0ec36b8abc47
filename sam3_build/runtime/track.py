"""A clip that is followed: takes prompts on its frames, yields what is found in each. The host code is the loop's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack, cast

from sam3_build.errors import BuildError
from sam3_build.pipeline.masks import boxes_around
from sam3_build.runtime.ask import Ask

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from sam3_build.pipeline.chain import Arrays
    from sam3_build.pipeline.loop import Follower
    from sam3_build.runtime.clip import Frames
    from sam3_build.runtime.open_clip import OpenClip
    from sam3_build.runtime.options import Prompts


@dataclass(frozen=True)
class TrackedFrame:
    """All objects in one frame, in the order in which they were added or found.

    index:   of the frame, in the order in which frames are run
    ids:     [n] int64, what `Track.add` calls them; of those that texts find, their numbers from 0 on
    masks:   [n, height, width] bool, empty where an object is not visible
    visible: [n] bool
    boxes:   [n, 4] float32, left, top, right, bottom of each mask in pixels; zeros of an empty one
    scores:  [n] float32, the predicted IoU of each mask; of objects that texts find, the score of the detection
    picture: [height, width, 3] uint8, RGB
    texts:   [n], the text that found each object; empty where prompts name them
    """

    index: int
    ids: NDArray[np.int64]
    masks: NDArray[np.bool_]
    visible: NDArray[np.bool_]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    picture: NDArray[np.uint8]
    texts: tuple[str, ...] = ()

    def save(self, path: str | Path) -> None:
        """Write the frame with all visible objects drawn over it, each in one colour through the whole clip."""
        from sam3_build.folders import write_atomically
        from sam3_build.runtime.found import encoded

        write_atomically(Path(path), encoded(self.drawn(), Path(path)))

    def drawn(self) -> NDArray[np.uint8]:
        """Return [height, width, 3] uint8, RGB: what `save` writes."""
        from sam3_build.drawing.instances import drawn

        seen = self.visible
        return drawn(self.picture, self.masks[seen], self.boxes[seen], self.ids[seen], one_colour_each=True)


@dataclass(frozen=True)
class _Request:
    """What was asked of an object on a frame."""

    which: int
    ask: Ask


class Track:
    """A clip on its way: prompts are added, before it starts or while it runs, and iterating gives frame after frame.

    What is remembered is bounded by the number of objects: `nbytes`. One thread at a time.
    """

    def __init__(self, opened: OpenClip, frames: Frames) -> None:
        """Start before the first frame."""
        self._opened, self._frames = opened, frames
        self._follower: Follower = opened.follower(frames.count)
        self._reading = frames.each()
        self._waiting: dict[int, list[_Request]] = {}  # by frame
        self._answered: dict[int, dict[int, Arrays]] = {}  # frames that are not reached yet -> object -> answer
        self._ids: list[int] = []
        self._next = self._first = 0
        self._size: tuple[int, int] | None = None
        self._now: _Now | None = None
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
        for which in self._ids:
            self._forget(which)
        self._now, self._reading = None, iter(())

    @property
    def count(self) -> int:
        """How many frames there are; 0 of a stream."""
        return self._frames.count

    @property
    def ids(self) -> tuple[int, ...]:
        """The objects that are followed, in the order in which they were added."""
        return tuple(self._ids)

    @property
    def nbytes(self) -> int:
        """How many bytes are kept: what is remembered of objects, and the last frame."""
        ahead = (array for answers in self._answered.values() for a in answers.values() for array in a.values())
        return self._follower.nbytes + sum(array.nbytes for array in ahead) + (self._now.nbytes if self._now else 0)

    def add(self, frame: int = 0, object: int | None = None, **prompts: Unpack[Prompts]) -> int:  # noqa: A002
        """Ask for an object on a frame, by points, a box around it or a mask of it; return what it is called.

        frame:   a later one than was yielded last, or that one: then `Track.frame` has the new answer
        object:  another prompt of an object that was added before; without, a new one
        prompts: see `Prompts`, in pixels of the frame

        More points on one frame correct what those before gave. Before a clip starts, frames may be prompted anywhere
        in it, and what is asked later on is known from the start on; of a stream, and after the start, only from there.
        BuildError says what is wrong, and then nothing is added.
        """
        return self.ask(Ask.of(None, **prompts), frame, object)

    def ask(self, ask: Ask, frame: int = 0, object: int | None = None) -> int:  # noqa: A002
        """Ask for an object by prompts that are checked: see `add`."""
        count, passed = self._frames.count, self._next - 1
        if not ask.keys:
            raise BuildError("nothing is asked for: give points, boxes or mask")
        if ask.marks.texts:
            raise BuildError("a text finds objects itself: call `Model.track_text`, or give points, boxes or mask")
        if frame < 0 or (count and frame >= count):
            raise BuildError(f"there is no frame {frame}: the clip has {count}, from 0 to {count - 1}")
        if frame < passed:
            raise BuildError(f"frame {frame} has passed: frame {passed} was the last; prompt that one, or a later one")
        if object is not None and (object < 0 or isinstance(object, bool)):
            raise BuildError(f"object {object!r} is no name of one: give a number from 0 on")
        which = max(self._ids, default=0) + 1 if object is None else object
        on_frame = self._waiting.get(frame, [])
        before = [request for request in on_frame if request.which == which]
        if before and (ask.mask or before[-1].ask.mask):
            raise BuildError(
                f"object {which} is prompted on frame {frame} already; a mask is the answer itself, so that nothing "
                "comes beside it"
            )
        request = _Request(which, ask)
        if self._size is None and count:
            self._require_size(self._frames.at(0), 0)
        if self._size:  # else when the frame is read
            self._opened.given(frame, [(which, ask)], self._size)
        self._waiting[frame] = [*on_frame, request]
        if which not in self._ids:
            self._ids.append(which)
        if frame == passed:
            self._correct(self._waiting[frame])
        return which

    def remove(self, object: int) -> None:  # noqa: A002
        """Follow an object no longer. BuildError when there is none of that name."""
        if object not in self._ids:
            named = ", ".join(map(str, self._ids)) or "none"
            raise BuildError(f"no object {object} is followed; there are {named}")
        self._forget(object)
        self._ids.remove(object)

    def __iter__(self) -> Iterator[TrackedFrame]:
        """Return itself: a clip is run once."""
        return self

    def __next__(self) -> TrackedFrame:
        """Return the next frame, with all objects. BuildError for one that cannot be read, or has another size."""
        if self._next == 0:
            self._start()
        try:
            picture = next(self._reading)
        except StopIteration:
            self._end()
            raise
        self._require_size(picture, self._next)
        position, encoded = self._next, self._opened.frame(picture)
        prompted = self._answered.pop(position, {})
        late = [request for request in self._waiting.get(position, []) if request.which not in prompted]
        if late:
            prompted |= self._asked(position, encoded, late, picture)
        followed = dict(self._follower.follow(position, encoded)) if position >= self._first else {}
        self._now = _Now(picture, encoded, followed, {**followed, **prompted})
        self._waiting = {at: requests for at, requests in self._waiting.items() if at >= position}
        self._next += 1
        self.frame = self._shown()
        return self.frame

    # -------------------------------------------------------------- steps

    def _start(self) -> None:
        """Answer all prompts of a clip whose frames can be read in any order: each is known before its frame.

        Frames before the first of them are not looked at, as in the loop.
        """
        if self._frames.count:
            self._first = min(self._waiting, default=0)
            for position in sorted(self._waiting):
                picture = self._frames.at(position)
                self._require_size(picture, position)
                requests = self._waiting[position]
                self._answered[position] = self._asked(position, self._opened.frame(picture), requests, picture)

    def _asked(
        self,
        position: int,
        encoded: Arrays,
        requests: Sequence[_Request],
        picture: Image.Image,
        found: Mapping[int, NDArray[np.generic]] | None = None,
    ) -> dict[int, Arrays]:
        given = self._opened.given(position, [(r.which, r.ask) for r in requests], (picture.height, picture.width))
        return dict(self._follower.ask(position, encoded, given, found or {}))

    def _correct(self, requests: Sequence[_Request]) -> None:
        """Answer prompts on the frame that was yielded last, once more from what was found without them."""
        now, position = self._now, self._next - 1
        if now is None:
            raise BuildError("the clip has ended")
        found = {which: answer["pred_masks"] for which, answer in now.followed.items()}
        now.answers |= self._asked(position, now.encoded, requests, now.picture, found)
        self.frame = self._shown()

    def _end(self) -> None:
        """Refuse a stream that ended before a frame that is prompted."""
        if late := sorted(at for at in self._waiting if at >= self._next):
            which = self._waiting[late[0]][0].which
            raise BuildError(f"the clip ends after {self._next} frames; object {which} is prompted on frame {late[0]}")

    def _forget(self, which: int) -> None:
        self._follower.forget(which)
        for answers in (*self._answered.values(), *([self._now.answers, self._now.followed] if self._now else [])):
            answers.pop(which, None)
        kept = {at: [r for r in requests if r.which != which] for at, requests in self._waiting.items()}
        self._waiting = {at: requests for at, requests in kept.items() if requests}

    def _require_size(self, picture: Image.Image, position: int) -> None:
        self._size = require_size(picture, position, self._size)

    def _shown(self) -> TrackedFrame:
        import numpy as np

        now = cast("_Now", self._now)
        tracks = self._opened.tracks(self._ids, now.answers, (now.picture.height, now.picture.width))
        masks, visible = tracks.masks[0] & tracks.visible[0][:, None, None], tracks.visible[0]
        scores = np.zeros(len(masks), np.float32) if tracks.scores is None else tracks.scores[0]
        return TrackedFrame(
            self._next - 1, tracks.ids, masks, visible, boxes_around(masks), scores, np.asarray(now.picture)
        )


def require_size(picture: Image.Image, position: int, size: tuple[int, int] | None) -> tuple[int, int]:
    """Return height and width of a frame; BuildError when those of the frames before it, `size`, are others."""
    own = picture.height, picture.width
    if size is not None and size != own:
        height, width = size
        raise BuildError(f"frame {position} is {own[1]} x {own[0]} pixels, and the others {width} x {height}")
    return own


@dataclass
class _Now:
    """The frame that was yielded last. followed: what was found without prompts on it; answers: all that is shown."""

    picture: Image.Image
    encoded: Arrays
    followed: dict[int, Arrays]
    answers: dict[int, Arrays]

    @property
    def nbytes(self) -> int:
        answers = {id(array): array for a in (*self.followed.values(), *self.answers.values()) for array in a.values()}
        return sum(array.nbytes for array in (*self.encoded.values(), *answers.values()))

"""Behind `sam3-build track`: takes a clip and prompts, follows the objects, writes a sheet, a video, masks, JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build import runtime
from sam3_build.commands.asked import Typed, asked
from sam3_build.commands.built import Built
from sam3_build.commands.progress import counted
from sam3_build.documents import Json
from sam3_build.drawing import film
from sam3_build.errors import BuildError, did_you_mean
from sam3_build.folders import write_atomically
from sam3_build.pipeline import clips
from sam3_build.pipeline.marks import Asked
from sam3_build.runtime.ask import Ask
from sam3_build.runtime.found import encoded, rle

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# What can be written of a clip.
SHEET, VIDEO, MASKS, TRACKS = SAVED = ("sheet", "video", "masks", "json")

# How many frames a sheet shows.
SHOWN = 12

# Frames per second of what has no rate of its own.
RATE = Fraction(10)


@dataclass(frozen=True)
class Request:
    """What was typed.

    clip:   a video file or a folder of pictures
    out:    the folder for what is saved; save: some of SAVED, joined by commas
    """

    clip: Path
    built: Built
    prompts: Typed
    reverse: bool = False
    out: Path = Path("tracked")
    save: str = SHEET


def track(request: Request, say: Callable[[str], None]) -> None:
    """Follow all that is asked for. When a frame cannot be read, what was done before is kept, and that is an error."""
    wanted = frozenset(name.strip() for name in request.save.split(",") if name.strip())
    for name in wanted:
        if name not in SAVED:
            raise BuildError(f"--save: there is no {name!r}{did_you_mean(name, SAVED)}")
    (prompts,) = asked(request.prompts, [request.clip.resolve().name])
    texts = _texts(prompts)
    with ExitStack() as stack:
        model = stack.enter_context(request.built.load())
        clip: runtime.Track | runtime.TextTrack
        if texts:
            clip = stack.enter_context(model.track_text(request.clip, texts, reverse=request.reverse))
            followed = f"what {', '.join(map(repr, texts))} finds"
        else:
            clip = marked = stack.enter_context(model.track(request.clip, reverse=request.reverse))
            _add(marked, prompts)
            followed = f"{len(marked.ids)} objects"
        say(f"{model.choice.name}, from {request.built.folder}; {followed}, {clip.count} frames")
        files = stack.enter_context(_files(request, wanted, clip.count, say))
        with counted(range(clip.count)) as each:
            for _ in each:
                files.add(next(clip))


def _texts(prompts: Sequence[Asked]) -> list[str]:
    """Return the texts that are asked for; none where objects are marked. BuildError where both are."""
    texts = [text for one in prompts for text in one.marks.texts]
    marked = [one for one in prompts if one.mask or one.marks.boxes or one.marks.points]
    if texts and marked:
        raise BuildError("a text finds objects itself, in the whole clip: give it without boxes, points and masks")
    return texts


def _add(clip: runtime.Track, prompts: Sequence[Asked]) -> None:
    for one in prompts:
        ask = Ask(one.marks, one.mask)
        for own in ask.objects if one.object is None else (ask,):
            clip.ask(own, one.frame, one.object)


@dataclass
class _Files:
    """What is written of a clip. shown: the frames of the sheet"""

    stem: str
    out: Path
    wanted: frozenset[str]
    shown: frozenset[int]
    video: film.Film | None = None
    sheet: list[tuple[int, film.Picture]] = field(default_factory=list)
    frames: list[Json] = field(default_factory=list)

    def add(self, frame: runtime.TrackedFrame) -> None:
        """Write a frame, or keep it for the sheet and the JSON file."""
        drawn = frame.drawn() if self.video or frame.index in self.shown else frame.picture
        if self.video:
            self.video.add(drawn)
        if frame.index in self.shown:
            self.sheet.append((frame.index, drawn))
        objects: list[Json] = []
        for i, which in enumerate(frame.ids.tolist()):
            mask, seen = frame.masks[i], bool(frame.visible[i])
            if MASKS in self.wanted and seen:
                path = self.out / f"{self.stem}.{frame.index:05}.{which}.png"
                _write(path, encoded(mask.astype("uint8") * 255, path))
            own: dict[str, Json] = {"id": which, "visible": seen, "score": float(frame.scores[i])}
            if frame.texts:
                own["text"] = frame.texts[i]
            if seen:
                own |= {"box": frame.boxes[i].tolist(), "rle": _rle(mask)}
            objects.append(own)
        self.frames.append({"index": frame.index, "objects": objects})

    def finish(self) -> Iterator[Path]:
        """Write what is known at the end; yield each file."""
        if SHEET in self.wanted and self.sheet:
            path = self.out / f"{self.stem}.png"
            _write(path, encoded(film.sheet(self.sheet), path))
            yield path
        if TRACKS in self.wanted:
            path = self.out / f"{self.stem}.json"
            _write(path, (json.dumps({"clip": self.stem, "frames": self.frames}) + "\n").encode())
            yield path


@contextmanager
def _files(request: Request, wanted: frozenset[str], count: int, say: Callable[[str], None]) -> Iterator[_Files]:
    stem = request.clip.resolve().stem
    shown = {round(i * (count - 1) / (SHOWN - 1)) for i in range(SHOWN)} if SHEET in wanted else set()
    path = request.out / f"{stem}{film.SUFFIX}"
    rate = clips.rate(request.clip) if request.clip.is_file() else None
    files = _Files(stem, request.out, wanted, frozenset(shown))
    try:
        with film.written(path, rate or RATE) if VIDEO in wanted else nullcontext() as files.video:
            yield files
    finally:
        video = [path] if files.video and files.frames else []
        for written in (*files.finish(), *video):
            say(f"{len(files.frames)} frames -> {written}")


def _rle(mask: NDArray[np.bool_]) -> Json:
    runs = rle(mask)
    return {"size": runs["size"], "counts": runs["counts"]}


def _write(path: Path, data: bytes) -> None:
    try:
        write_atomically(path, data)
    except OSError as error:
        raise BuildError(f"{path} cannot be written: {error.strerror}; name another place with --out") from error

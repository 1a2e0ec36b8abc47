"""A model that was built: takes a folder, returns what segments pictures. The host code is that of verification."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, Unpack, cast

from sam3_build import registry
from sam3_build.errors import BuildError, did_you_mean
from sam3_build.model_format import MODEL, ModelPipeline
from sam3_build.runtime.choice import AUTO, Choice, choose
from sam3_build.runtime.clip import frames_of
from sam3_build.runtime.folder import ModelFolder, open_folder
from sam3_build.runtime.found import KINDS, Found
from sam3_build.runtime.open_clip import OpenClip, OpenLoop, OpenWords, finding, tracked
from sam3_build.runtime.opened import OpenPipeline, Sessions
from sam3_build.runtime.options import Request
from sam3_build.runtime.pictures import given
from sam3_build.runtime.scene import Scene
from sam3_build.runtime.track import Track
from sam3_build.runtime.track_words import TextTrack

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from sam3_build.runtime.ask import Texts
    from sam3_build.runtime.clip import Video
    from sam3_build.runtime.options import Options

    Picture = str | Path | Image.Image | NDArray[np.uint8]

Loop = TypeVar("Loop", bound=OpenLoop)

# How many bytes of encoded pictures each pipeline keeps.
MEMORY = 2 * 2**30


def load(
    folder: str | Path,
    target: str = AUTO,
    precision: str | None = None,
    unverified: bool = False,
    *,
    memory: int = MEMORY,
    tokenizer: str | Path | None = None,
) -> Model:
    """Return the model in a folder: `artifacts/<manifest>`, or a published one.

    target, precision: see `choice.choose`; `auto` takes what passed and runs here, the fastest kind first
    unverified: whether files may run that did not pass, or were judged by an emulation alone
    memory:     bytes of encoded pictures that are kept
    tokenizer:  a tokenizer.json in the place of the folder's own

    BuildError when the folder is not one, when a file is missing or differs from its digest, when nothing may run here.
    """
    opened = open_folder(Path(folder))
    chosen = partial(choose, opened, target=target, precision=precision, unverified=unverified)
    return Model(opened, _pipelines(opened), chosen, memory, Path(tokenizer) if tokenizer else None)


def _pipelines(folder: ModelFolder) -> dict[str, ModelPipeline]:
    """Return the pipelines that find something in pictures, by name."""
    description = folder.description
    if description.family not in registry.names("families"):
        hint = did_you_mean(description.family, registry.names("families"))
        raise BuildError(f"{folder.path / MODEL}: this sam3-build knows no family {description.family!r}{hint}")
    found = {p.name: p for p in description.pipelines if p.result in KINDS and not p.loops}
    if not (found or tracked(folder) or finding(folder)):
        kinds = ", ".join(f"{p.name} ({p.result})" for p in description.pipelines)
        raise BuildError(f"{folder.path} finds nothing in pictures or clips; its pipelines are {kinds}")
    return found


class Model:
    """Networks that are loaded, and pictures that were encoded. One thread at a time.

    seconds, runs: component -> the time that it has taken, and how often it ran
    """

    def __init__(
        self,
        folder: ModelFolder,
        pipelines: Mapping[str, ModelPipeline],
        choose: Callable[[ModelPipeline], Choice],
        memory: int,
        tokenizer: Path | None,
    ) -> None:
        """Open the first of the pipelines; the others are opened when something is asked that they take.

        pipelines: those for pictures, by name; of a model for clips alone, none
        """
        description = folder.description
        family = registry.family(description.family).laid_out(description.layout)
        self.folder, self._pipelines, self._choose = folder, pipelines, choose
        self._memory, self._tokenizer, self._sessions = memory, tokenizer, Sessions(folder)
        self.seconds, self.runs = self._sessions.times.seconds, self._sessions.times.runs
        self._kinds = {name: family.pipeline(name).prompts for name in pipelines}
        self._results = registry.family_code(description.family).results
        self._opened: dict[str, OpenPipeline] = {}
        self._loops: dict[type[OpenLoop], OpenLoop] = {}
        try:
            for name in list(pipelines)[:1]:
                self._open(name)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free all networks and pictures."""
        for opened in self._opened.values():
            opened.forget()
        self._sessions.close()

    def __enter__(self) -> Self:
        """Return the model."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    @property
    def choice(self) -> Choice:
        """The files of its first pipeline; of a model for clips alone, of the one that was opened first."""
        opened = [*self._opened.values(), *self._loops.values()] or [self._open(self._first)]
        return opened[0].choice

    @property
    def _first(self) -> str:
        for name in self._pipelines:
            return name
        kinds = ", ".join(p.name for p in self.folder.description.pipelines)
        raise BuildError(f"this model finds nothing in pictures; its pipelines are {kinds}")

    def encode(self, picture: Picture) -> Scene:
        """Return a picture as the networks see it, to be asked as often as one likes.

        picture: a path, a PIL image, or [height, width, 3] uint8, RGB
        What computes on the picture alone runs once; what it gives is kept for the pictures used last, within the
        model's memory.
        """
        scene = Scene(self, given(picture))
        scene.computed(self._first)
        return scene

    def segment(self, picture: Picture, text: Texts | None = None, **options: Unpack[Options]) -> Found:
        """Return what is found in a picture: see `Scene.segment`."""
        return Scene(self, given(picture)).segment(text, **options)

    def answer(self, picture: Picture, request: Request) -> Found:
        """Return what is found of a request that is checked: see `Scene.segment`."""
        return Scene(self, given(picture)).answer(request)

    def segment_many(
        self, pictures: Iterable[Picture], text: Texts | None = None, **options: Unpack[Options]
    ) -> Iterator[Found]:
        """Yield what is found in each picture, in order; a picture is read when it is due."""
        for picture in pictures:
            yield self.segment(picture, text, **options)

    def track(self, video: Video, *, reverse: bool = False) -> Track:
        """Return a clip on its way: `add` objects to it, then iterate over its frames.

        video:   a video file, a folder of pictures, a list of them, or a stream: any other iterable of pictures
        reverse: whether the last frame comes first, and is frame 0
        BuildError when the model does not track, when the clip has no frames, and for a stream in reverse.
        """
        frames = frames_of(video, reverse)
        return Track(self._loop(OpenClip, tracked, "follows nothing that is marked through clips"), frames)

    def track_text(self, video: Video, text: Texts, *, reverse: bool = False) -> TextTrack:
        """Return a clip on its way: iterate over its frames, with all objects that one text or several find.

        video, reverse: as for `track`. Of a stream no object is removed again, and no frame is held back
        BuildError when the model finds nothing in clips, and as `track` does.
        """
        frames = frames_of(video, reverse)
        opened = self._loop(OpenWords, finding, "finds nothing in clips by words")
        return TextTrack(opened, frames, (text,) if isinstance(text, str) else text)

    def _loop(self, kind: type[Loop], find: Callable[[ModelFolder], ModelPipeline | None], lacks: str) -> Loop:
        if kind not in self._loops:
            pipeline = find(self.folder)
            if pipeline is None:
                kinds = ", ".join(p.name for p in self.folder.description.pipelines)
                raise BuildError(f"this model {lacks}; its pipelines are {kinds}")
            self._loops[kind] = kind(self.folder, pipeline, self._choose(pipeline), self._sessions, self._tokenizer)
        return cast("Loop", self._loops[kind])

    def _open(self, name: str) -> OpenPipeline:
        if name not in self._opened:
            pipeline = self._pipelines[name]
            self._opened[name] = OpenPipeline(
                self.folder, pipeline, self._choose(pipeline), self._sessions, self._memory, self._tokenizer
            )
        return self._opened[name]

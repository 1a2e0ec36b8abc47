"""Behind `sam3-build segment`: takes what was typed, segments each picture, and says what was found and written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sam3_build import runtime
from sam3_build.commands.asked import Typed, asked
from sam3_build.commands.built import Built
from sam3_build.commands.progress import counted
from sam3_build.commands.segment_files import Files
from sam3_build.errors import BuildError
from sam3_build.pipeline.images import SUFFIXES
from sam3_build.pipeline.marks import Asked
from sam3_build.runtime.ask import Ask
from sam3_build.runtime.keep import Keep
from sam3_build.runtime.options import Effort


@dataclass(frozen=True)
class Request:
    """What was typed.

    pictures: files, or folders of them
    out:      the folder for all that is saved; output: the one overlay, or that folder when it has no picture's suffix
    save:     some of `segment_files.SAVED`, joined by commas
    """

    pictures: Sequence[Path]
    built: Built
    prompts: Typed
    keep: Keep
    effort: Effort
    tokenizer: Path | None = None
    out: Path | None = None
    output: Path | None = None
    save: str = "overlay"
    times: bool = False


def segment(request: Request, say: Callable[[str], None]) -> None:
    """Segment all pictures; `say` gets a line for each. BuildError before anything is written, where that can be."""
    pictures = pictures_of(request.pictures)
    questions = [
        runtime.Request(_asks(picture, own), request.keep, request.effort)
        for picture, own in zip(pictures, asked(request.prompts, [picture.name for picture in pictures]), strict=True)
    ]
    files = Files.of(request.save, request.out, request.output, pictures)
    began = time.perf_counter()
    with request.built.load(request.tokenizer, memory=0) as model:  # each picture is asked once
        loaded = time.perf_counter() - began
        say(f"{model.choice.name}, from {request.built.folder}")
        with counted(list(zip(pictures, questions, strict=True))) as each:
            for picture, question in each:
                found = model.answer(picture, question)
                places = files.save(picture, found)
                say(f"{_line(picture, found)}{f' -> {places[0]}' if places else ''}")
        if coco := files.save_coco():
            say(f"{len(files.annotations)} annotations -> {coco}")
        if request.times:
            say(f"load {loaded:.3f} s")
            for name, seconds in model.seconds.items():
                say(f"{name} {seconds:.3f} s, {model.runs[name]} runs")
            say(f"all {time.perf_counter() - began:.3f} s")


def pictures_of(given: Iterable[Path]) -> list[Path]:
    """Return the pictures that files and folders name, each folder's in the order of their names.

    BuildError when there is none, one is no file, or two would be written under one name.
    """
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise BuildError(f"{path} holds no picture ({', '.join(SUFFIXES)})")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise BuildError(f"there is no file {path}")
    if not found:
        raise BuildError("name a picture, or a folder of them")
    stems: dict[str, Path] = {}
    for path in found:
        other = stems.setdefault(path.stem, path)
        if other is not path:
            raise BuildError(f"{other} and {path} would both be written as {path.stem}.png: segment them one by one")
    return found


def _asks(picture: Path, asked: Sequence[Asked]) -> list[Ask]:
    named: set[int] = set()
    for one in asked:
        if one.frame:
            raise BuildError(f"frame {one.frame} of {picture}: a picture has none; `sam3-build track` takes clips")
        if one.object in named:
            raise BuildError(f"object {one.object} of {picture} is asked for twice: join what is asked in one prompt")
        named |= set() if one.object is None else {one.object}
    return [Ask(one.marks, one.mask) for one in asked]


def _line(picture: Path, found: runtime.Found) -> str:
    if not len(found):
        return f"{picture}: nothing found"
    counts = {label: found.labels.count(label) for label in dict.fromkeys(found.labels)}
    named = ", ".join(f"{count} {label}" for label, count in counts.items())
    return f"{picture}: {named}; scores {', '.join(f'{score:.2f}' for score in found.scores)}"

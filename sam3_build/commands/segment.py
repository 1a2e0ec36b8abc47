"""Behind `sam3-build segment`: takes what was typed, segments each picture, and says what was found and written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sam3_build import runtime
from sam3_build.commands.progress import counted
from sam3_build.commands.segment_files import Files
from sam3_build.commands.segment_prompts import Typed, asks
from sam3_build.errors import BuildError
from sam3_build.pipeline.images import SUFFIXES
from sam3_build.runtime.keep import Keep


@dataclass(frozen=True)
class Request:
    """What was typed.

    pictures: files, or folders of them
    folder:   what was built (see `built`)
    out:      the folder for all that is saved; output: the one overlay, or that folder when it has no picture's suffix
    save:     some of `segment_files.SAVED`, joined by commas
    """

    pictures: Sequence[Path]
    folder: Path
    prompts: Typed
    keep: Keep
    target: str = "auto"
    precision: str | None = None
    unverified: bool = False
    tokenizer: Path | None = None
    out: Path | None = None
    output: Path | None = None
    save: str = "overlay"
    times: bool = False


def segment(request: Request, say: Callable[[str], None]) -> None:
    """Segment all pictures; `say` gets a line for each. BuildError before anything is written, where that can be."""
    pictures = pictures_of(request.pictures)
    asked = asks(request.prompts, pictures)
    files = Files.of(request.save, request.out, request.output, pictures)
    began = time.perf_counter()
    with runtime.load(
        request.folder,
        target=request.target,
        precision=request.precision,
        unverified=request.unverified,
        memory=0,  # each picture is asked once
        tokenizer=request.tokenizer,
    ) as model:
        loaded = time.perf_counter() - began
        say(f"{model.choice.name}, from {request.folder}")
        with counted(list(zip(pictures, asked, strict=True))) as each:
            for picture, ask in each:
                found = model.answer(picture, ask, request.keep)
                places = files.save(picture, found)
                say(f"{_line(picture, found)}{f' -> {places[0]}' if places else ''}")
        if coco := files.save_coco():
            say(f"{len(files.annotations)} annotations -> {coco}")
        if request.times:
            say(f"load {loaded:.3f} s")
            for name, seconds in model.seconds.items():
                say(f"{name} {seconds:.3f} s, {model.runs[name]} runs")
            say(f"all {time.perf_counter() - began:.3f} s")


def built(given: Path | None, manifest: str, here: Path) -> Path:
    """Return the folder of what was built: `given`, or `artifacts/<name>` in `here` or above it.

    given:    a folder, or the name of a manifest
    manifest: name or path of the one that is meant when nothing is given
    """
    if given is not None and (given.is_dir() or len(given.parts) > 1):
        return given
    name = given.name if given else Path(manifest).name.removesuffix(".yaml")
    for folder in (here, *here.parents):
        if (found := folder / "artifacts" / name).is_dir():
            return found
    what = f"no folder {given} and " if given else ""
    raise BuildError(
        f"there is {what}no artifacts/{name} in {here} or above it: build it with `doit manifest={name}`, or name a "
        "folder that was built or published with --from"
    )


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


def _line(picture: Path, found: runtime.Found) -> str:
    if not len(found):
        return f"{picture}: nothing found"
    counts = {label: found.labels.count(label) for label in dict.fromkeys(found.labels)}
    named = ", ".join(f"{count} {label}" for label, count in counts.items())
    return f"{picture}: {named}; scores {', '.join(f'{score:.2f}' for score in found.scores)}"

"""Behind `sam3-build segment`: takes what was typed, segments each picture, writes overlays, masks and a COCO file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build import runtime
from sam3_build.errors import BuildError, did_you_mean
from sam3_build.folders import write_atomically
from sam3_build.pipeline import prompts
from sam3_build.pipeline.images import SUFFIXES
from sam3_build.runtime.found import encoded

if TYPE_CHECKING:
    from sam3_build.runtime.found import Annotation

# What can be written of each picture.
SAVED = ("overlay", "masks", "coco")

COCO = "coco.json"


@dataclass(frozen=True)
class Request:
    """What was typed.

    pictures: files, or one folder of them
    boxes:    as `pos:x,y,w,h;neg:...`; corners: each as `x1,y1,x2,y2`
    out:      the folder for all that is saved; output: the one overlay, or that folder when it has no picture's suffix
    save:     some of SAVED, joined by commas
    """

    pictures: Sequence[Path]
    folder: Path
    text: Sequence[str] = ()
    boxes: str | None = None
    corners: Sequence[str] = ()
    threshold: float | None = None
    most: int | None = None
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
    wanted = _saved(request.save)
    edges, labels = _boxes(request)
    if not request.text and not edges:
        raise BuildError("nothing is asked for: give --text, --boxes or --box")
    overlay, out = _places(request, pictures)
    began = time.perf_counter()
    with runtime.load(
        request.folder,
        target=request.target,
        precision=request.precision,
        unverified=request.unverified,
        tokenizer=request.tokenizer,
    ) as model:
        loaded = time.perf_counter() - began
        say(f"{model.choice.name}, from {request.folder}")
        annotations: list[Annotation] = []
        found_in = model.segment_many(
            pictures, list(request.text) or None, edges or None, labels or None, request.threshold, request.most
        )
        for number, (picture, found) in enumerate(zip(pictures, found_in, strict=True), start=1):
            places = []
            if "overlay" in wanted:
                places.append(overlay or out / f"{picture.stem}.png")
                found.save(_made(places[-1]))
            if "masks" in wanted:
                for i, mask in enumerate(found.masks):
                    places.append(out / f"{picture.stem}.mask{i}.png")
                    write_atomically(_made(places[-1]), encoded(mask.astype("uint8") * 255, places[-1]))
            annotations += found.to_coco(number)
            say(f"{_line(picture, found)}{f' -> {places[0]}' if places else ''}")
        if "coco" in wanted:
            write_atomically(_made(out / COCO), _coco(pictures, found.texts, annotations))
            say(f"{len(annotations)} annotations -> {out / COCO}")
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


def _saved(save: str) -> set[str]:
    names = [name.strip() for name in save.split(",") if name.strip()]
    for name in names:
        if name not in SAVED:
            raise BuildError(f"--save: there is no {name!r}{did_you_mean(name, SAVED)}")
    return set(names)


def _boxes(request: Request) -> tuple[list[list[float]], list[int]]:
    """Return all boxes as left, top, right, bottom, and their labels."""
    edges, labels = [], []
    try:
        for box in prompts.boxes(request.boxes) if request.boxes is not None else ():
            edges.append([box.x, box.y, box.x + box.w, box.y + box.h])
            labels.append(box.label)
    except ValueError as error:
        raise BuildError(f"--boxes: {error}") from error
    for text in request.corners:
        try:
            numbers = [float(part) for part in text.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) != 4:
            raise BuildError(f"--box: {text!r} is not 'x1,y1,x2,y2' (pixels)")
        edges.append(numbers)
        labels.append(1)
    return edges, labels


def _places(request: Request, pictures: Sequence[Path]) -> tuple[Path | None, Path]:
    """Return the one overlay that was named, if any, and the folder for everything else."""
    output = request.output
    if output is None or output.suffix.lower() not in SUFFIXES:
        if output and request.out and output != request.out:
            raise BuildError(f"--output {output} is a folder, and so is --out {request.out}: give one")
        return None, request.out or output or Path("segmented")
    if len(pictures) > 1:
        raise BuildError(f"--output {output} is one picture, and {len(pictures)} are given: name a folder with --out")
    return output, request.out or output.parent


def _made(path: Path) -> Path:
    """Return a path, with its folder there. BuildError where it cannot be written, or would replace what is read."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(f"{path.parent} cannot be made: {error.strerror}") from error
    return path


def _line(picture: Path, found: runtime.Found) -> str:
    if not len(found):
        return f"{picture}: nothing found"
    counts = {label: found.labels.count(label) for label in dict.fromkeys(found.labels)}
    named = ", ".join(f"{count} {label}" for label, count in counts.items())
    return f"{picture}: {named}; scores {', '.join(f'{score:.2f}' for score in found.scores)}"


def _coco(pictures: Sequence[Path], texts: Sequence[str], annotations: Sequence[Annotation]) -> bytes:
    """Return a COCO file: pictures by their names, a category for each prompt, annotations numbered from 1."""
    from PIL import Image

    images = []
    for number, picture in enumerate(pictures, start=1):
        with Image.open(picture) as opened:
            turned = opened.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            width, height = opened.size[::-1] if turned else opened.size
        images.append({"id": number, "file_name": picture.name, "width": width, "height": height})
    document = {
        "images": images,
        "categories": [{"id": number, "name": text} for number, text in enumerate(texts, start=1)],
        "annotations": [{"id": i, "iscrowd": 0, **one} for i, one in enumerate(annotations, start=1)],
    }
    return (json.dumps(document) + "\n").encode()

"""Files of `sam3-build segment`: takes what is found in each picture, writes overlays, masks and a COCO file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sam3_build.errors import BuildError, did_you_mean
from sam3_build.folders import write_atomically
from sam3_build.pipeline.images import SUFFIXES
from sam3_build.runtime.found import Found, encoded

# What can be written of each picture.
OVERLAY, MASKS, COCO = SAVED = ("overlay", "masks", "coco")

COCO_FILE = "coco.json"


@dataclass
class Files:
    """Where files go, and what the COCO file will say. Each file is written whole or not at all.

    wanted:  some of SAVED
    overlay: the one overlay, if that was named; out: the folder for everything else
    read:    the pictures, resolved: nothing is written over them
    """

    wanted: frozenset[str]
    overlay: Path | None
    out: Path
    read: frozenset[Path]
    images: list[Mapping[str, int | str]] = field(default_factory=list)
    categories: dict[str, int] = field(default_factory=dict)
    annotations: list[Mapping[str, object]] = field(default_factory=list)

    @classmethod
    def of(cls, save: str, out: Path | None, output: Path | None, pictures: Sequence[Path]) -> Files:
        """Return it for these options. BuildError when they do not suit, or a picture would be written over."""
        wanted = frozenset(name.strip() for name in save.split(",") if name.strip())
        for name in wanted:
            if name not in SAVED:
                raise BuildError(f"--save: there is no {name!r}{did_you_mean(name, SAVED)}")
        files = cls(wanted, *_places(out, output, pictures), frozenset(path.resolve() for path in pictures))
        if OVERLAY in wanted:
            for picture in pictures:
                files._require_new(files._overlay_of(picture))
        return files

    def save(self, picture: Path, found: Found) -> list[Path]:
        """Write the overlay and masks of a picture, and keep what the COCO file says of it; return what was written."""
        pictures = {}
        if OVERLAY in self.wanted:
            pictures[self._overlay_of(picture)] = found.overlay()
        if MASKS in self.wanted:
            for i, mask in enumerate(found.masks):
                pictures[self.out / f"{picture.stem}.mask{i}.png"] = mask.astype("uint8") * 255
        for path, pixels in pictures.items():
            self._write(path, encoded(pixels, path))
        height, width = found.picture.shape[:2]
        number = len(self.images) + 1
        self.images.append({"id": number, "file_name": picture.name, "width": width, "height": height})
        numbers = [self.categories.setdefault(text, len(self.categories) + 1) for text in found.texts]
        for one in found.to_coco(number):
            own = {"id": len(self.annotations) + 1, "category_id": numbers[one["category_id"] - 1], "iscrowd": 0}
            self.annotations.append({**one, **own})
        return list(pictures)

    def save_coco(self) -> Path | None:
        """Write the COCO file, when it is wanted: a category for each label. Return where it is."""
        if COCO not in self.wanted:
            return None
        document = {
            "images": self.images,
            "categories": [{"id": number, "name": label} for label, number in self.categories.items()],
            "annotations": self.annotations,
        }
        self._write(self.out / COCO_FILE, (json.dumps(document) + "\n").encode())
        return self.out / COCO_FILE

    def _overlay_of(self, picture: Path) -> Path:
        return self.overlay or self.out / f"{picture.stem}.png"

    def _require_new(self, path: Path) -> None:
        if path.resolve() in self.read:
            raise BuildError(
                f"{path} is one of the pictures, and would be written over: name another folder with --out"
            )

    def _write(self, path: Path, data: bytes) -> None:
        self._require_new(path)
        try:
            write_atomically(path, data)
        except OSError as error:
            raise BuildError(f"{path} cannot be written: {error.strerror}; name another place with --out") from error


def _places(out: Path | None, output: Path | None, pictures: Sequence[Path]) -> tuple[Path | None, Path]:
    """Return the one overlay that was named, if any, and the folder for everything else."""
    if output is None or output.suffix.lower() not in SUFFIXES:
        if output and out and output != out:
            raise BuildError(f"--output {output} is a folder, and so is --out {out}: give one")
        return None, out or output or Path("segmented")
    if len(pictures) > 1:
        raise BuildError(f"--output {output} is one picture, and {len(pictures)} are given: name a folder with --out")
    return output, out or output.parent

"""A checkpoint of any format that this family reads in; where its tensors lie, by Sam3Model's names, out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from sam3_build.errors import BuildError
from sam3_build.families.sam3_image import safetensors_file, torch_file
from sam3_build.families.sam3_image.key_map import FORMATS, Renamed, recognise, rename, stranger
from sam3_build.families.sam3_image.stored import Stored

READERS: Mapping[str, Callable[[Path], dict[str, Stored]]] = {
    ".safetensors": safetensors_file.read_header,
    ".index.json": safetensors_file.read_index,
    ".pt": torch_file.read_header,
    ".pth": torch_file.read_header,
    ".bin": torch_file.read_header,
}

# What a download leaves that is no checkpoint: the first bytes, what they are, and what to do.
SHAM = (
    (b"version https://git-lfs", "a Git LFS pointer and not the file itself; run `git lfs pull` where it was cloned"),
    (b"<!doctype html", "a web page, not a checkpoint; download the file itself, logged in if the site asks for it"),
    (b"<html", "a web page, not a checkpoint; download the file itself, logged in if the site asks for it"),
    (b"{", "JSON, probably a server's refusal, and not a checkpoint; look into it, and download the file again"),
)


def read(path: Path) -> Renamed:
    """Return the tensors of a checkpoint. BuildError when it cannot be read, or is that of another model."""
    stored = tensors(path)
    wanted = f"wanted is SAM 3's image model, as {', '.join(form.title for form in FORMATS)}"
    if other := stranger(stored):
        raise BuildError(f"{path.name} holds {other}, by the names of its tensors ({_sample(stored)}); {wanted}")
    form = recognise(stored)
    if form is None:
        raise BuildError(f"{path.name} holds no tensor of SAM 3: its names are {_sample(stored)}; {wanted}")
    return rename(stored, form)


def tensors(path: Path) -> dict[str, Stored]:
    """Return where each tensor of a file, or of all files of an index, lies, by the file's own keys."""
    reader = next((reader for suffix, reader in READERS.items() if path.name.endswith(suffix)), None)
    if reader is None:
        raise BuildError(f"{path.name} is no checkpoint by its name; known are {', '.join(READERS)}")
    with path.open("rb") as file:
        start = file.read(64)
    # Of a safetensors file, the ninth byte is the first of its header; an index is JSON.
    sham = [what for begin, what in SHAM if start.lstrip().lower().startswith(begin) and start[8:9] != b"{"]
    if sham and reader is not safetensors_file.read_index:
        raise BuildError(f"{path.name} is {sham[0]}")
    return reader(path)


def _sample(keys: Collection[str]) -> str:
    """Return the first parts of the names, so that a reader sees which model it is."""
    roots = list(dict.fromkeys(".".join(key.split(".")[:2]) for key in keys))
    more = f" and {len(roots) - 6} more" if len(roots) > 6 else ""
    return f"{', '.join(f'{root}.*' for root in roots[:6])}{more}" if roots else "none at all"

"""Takes a manifest's samples, returns them as parameters of stages, or what their family finds wrong with them.

To find that opens every picture; a manifest that loads well opens none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sam3_build import registry
from sam3_build.errors import Keys
from sam3_build.manifest.types import Sample
from sam3_build.params import SampleParams
from sam3_build.pipeline.images import SUFFIXES
from sam3_build.pipeline.prompts import reordered
from sam3_build.spec import Json


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures of a clip's folder, in the order of their names."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def clip_files(video: Path, frames: int) -> list[Path]:
    """Return the first `frames` pictures of a folder, or the one file that holds a clip."""
    return pictures_in(video)[:frames] if video.is_dir() else [video]


def as_params(
    samples: Iterable[Sample], numbers: Iterable[int] | None = None
) -> tuple[tuple[tuple[str, SampleParams], ...], dict[str, Path]]:
    """Return (pipeline, sample as stages get it) for each, and role -> file: what many samples have is one file.

    numbers: where each stands in the manifest, when these are not all
    """
    samples = list(samples)
    pictures = {path: f"image{i}" for i, path in enumerate(dict.fromkeys(p for s in samples for p in s.pictures))}
    masks = {path: f"mask{i}" for i, path in enumerate(dict.fromkeys(p for s in samples for p in s.masks.values()))}
    listed = []
    for i, s in zip(numbers or range(len(samples)), samples, strict=True):
        sample = SampleParams(
            number=i,
            pictures=tuple(pictures[path] for path in s.pictures),
            prompts=_with_roles(s.prompts, {key: masks[path] for key, path in s.masks.items()}),
            frames=s.frames,
            reverse=s.reverse,
        )
        listed.append((s.pipeline, sample))
        if prompts := reordered(sample.prompts):
            again = SampleParams.of({**sample.document(), "prompts": prompts, "is_reordered": True})
            listed.append((s.pipeline, again))
    return tuple(listed), {role: path for path, role in (*pictures.items(), *masks.items())}


def _with_roles(document: Mapping[str, Json], roles: Mapping[str, str]) -> Mapping[str, Json]:
    """Return a document of prompts in which each mask is the role of its file."""
    named = {**document, "mask": roles[str(document["mask"])]} if "mask" in document else document
    on_frames = named.get("prompts")
    if not isinstance(on_frames, Sequence) or isinstance(on_frames, str):
        return named
    return {**named, "prompts": [_with_roles(p, roles) if isinstance(p, Mapping) else p for p in on_frames]}


# ------------------------------------------------------------------ what the family says of them


def problems(
    family: str, samples: Mapping[int, Sample], tokenizer: Path | None, config: Path | None
) -> list[tuple[Keys, str]]:
    """Return what the family finds wrong with samples, by their positions in the manifest. Opens every picture.

    Without a tokenizer texts are not judged, without a config (or with one that relies on defaults) not their length.
    """
    if not registry.has_code(family, "prompts"):
        return []
    listed, files = as_params(samples.values(), list(samples))
    return list(registry.family_code(family).prompts.problems(listed, tokenizer, files, _read(config)))


def _read(config: Path | None) -> Mapping[str, Json] | None:
    """Return a model config; None for one that cannot be read, of which the action that needs it says why."""
    try:
        found = json.loads(config.read_bytes()) if config else None
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None

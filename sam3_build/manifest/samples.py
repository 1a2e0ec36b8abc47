"""Takes a manifest's samples, returns them as JSON, or what their family finds wrong with them.

To find that opens every picture; a manifest that loads well opens none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path

from sam3_build import registry
from sam3_build.errors import Keys
from sam3_build.manifest.types import Sample
from sam3_build.params import SampleParams
from sam3_build.spec import Json


def as_params(samples: Iterable[Sample]) -> tuple[tuple[SampleParams, ...], dict[str, Path]]:
    """Return each sample as stages get it, and role -> picture: one that many samples have is one file."""
    samples = list(samples)
    images = {path: f"image{i}" for i, path in enumerate(dict.fromkeys(s.image for s in samples))}
    listed = tuple(
        SampleParams(
            image=images[s.image],
            text=s.text,
            boxes=tuple({"label": b.label, "xywh": [b.x, b.y, b.w, b.h]} for b in s.boxes),
        )
        for s in samples
    )
    return listed, {role: path for path, role in images.items()}


def problems(
    family: str, samples: Mapping[int, Sample], tokenizer: Path | None, config: Path | None
) -> list[tuple[Keys, str]]:
    """Return what the family finds wrong with samples, by their positions in the manifest. Opens every picture.

    Without a tokenizer texts are not judged, without a config (or with one that relies on defaults) not their length.
    """
    if not registry.judges_samples(family):
        return []
    judge: Callable[..., list[tuple[Keys, str]]] = import_module(f"sam3_build.families.{family}.prompts").problems
    listed, images = as_params(samples.values())
    positions = list(samples)
    found = judge([sample.document() for sample in listed], tokenizer, images, _read(config))
    return [((k[0], positions[int(k[1])], *k[2:]) if k[0] == "samples" else k, text) for k, text in found]


def _read(config: Path | None) -> Mapping[str, Json] | None:
    """Return a model config; None for one that cannot be read, of which the action that needs it says why."""
    try:
        found = json.loads(config.read_bytes()) if config else None
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None

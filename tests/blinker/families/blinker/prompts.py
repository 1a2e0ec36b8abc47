"""Takes clips and points on their frames, returns the arrays of every case. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sam3_build.families.blinker.family import ClipPrompts, static_dims

from sam3_build.documents import value_of
from sam3_build.errors import BuildError, InputError, Keys
from sam3_build.params import SampleParams
from sam3_build.pipeline.cases import Case, PromptRequest
from sam3_build.spec import Json


def make_cases(request: PromptRequest) -> Iterator[Case]:
    """Yield a case for each clip. InputError when `problems` finds any."""
    import numpy as np

    numbered = [(request.pipeline, sample) for sample in request.samples]
    if faults := problems(numbered, None, request.files, request.config):
        raise InputError(faults)
    size = static_dims(request.config)["size"]
    for i, sample in enumerate(request.samples):
        prompts = value_of(ClipPrompts, sample.prompts).prompts
        points = [(p.points[0].x, p.points[0].y) if p.points else (np.nan, np.nan) for p in prompts]
        name = f"clip{sample.number}"
        files = [request.files[role] for role in sample.pictures]
        yield Case(
            name=f"{name}.reordered" if sample.is_reordered else name,
            samples=(i,),
            arrays={
                "prompt_frames": np.array([p.frame for p in prompts], np.int64),
                "prompt_objects": np.array([p.remove if p.object is None else p.object for p in prompts], np.int64),
                "prompt_points": np.array(points, np.float32),
            },
            frames=({"images": _pixels(file, size)} for file in (files[::-1] if sample.reverse else files)),
            like=name if sample.is_reordered else "",
        )


def problems(
    samples: Sequence[tuple[str, SampleParams]],
    tokenizer: Path | None,
    files: Mapping[str, Path],
    config: Mapping[str, Json] | None,
) -> list[tuple[Keys, str]]:
    """Return what is wrong with pictures, and where."""
    found: list[tuple[Keys, str]] = []
    for _, sample in samples:
        for role in sample.pictures:
            try:
                _pixels(files[role], static_dims(config)["size"] if config else None)
            except (OSError, BuildError) as error:
                found.append((("samples", sample.number, "video"), f"{files[role].name}: {error}"))
    return found


def _pixels(file: Path, size: int | None):
    """Return [1, 3, size, size] float32 in -0.5 to 0.5. BuildError for a picture of another size."""
    import numpy as np
    from PIL import Image

    with Image.open(file) as picture:
        pixels = np.asarray(picture.convert("RGB"), np.float32).transpose(2, 0, 1)[None] / 255 - 0.5
    if size and pixels.shape[2:] != (size, size):
        raise BuildError(f"is {pixels.shape[3]} x {pixels.shape[2]} pixels, not {size} x {size}")
    return pixels

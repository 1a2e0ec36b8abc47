"""Takes pictures, points, boxes and masks, returns the inputs of networks: a user's, and those parity is measured on.

Conventions of SAM 1: the picture's longer side is brought to the network's, it is normalised and then padded with
zeros; points and corners of boxes are in its pixels; without a box, (0, 0) labelled -1 stands behind the points.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.documents import value_of
from sam3_build.errors import InputError, Keys
from sam3_build.families.sam1.family import cases, static_dims
from sam3_build.params import SampleParams
from sam3_build.pipeline import images, interactive
from sam3_build.pipeline.cases import Case, PromptRequest
from sam3_build.pipeline.interactive import NO_POINT, ObjectPrompts
from sam3_build.spec import CaseRequest, CaseShape, Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    Array = NDArray[np.generic]

# In grey levels.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def make_cases(request: PromptRequest) -> Iterator[Case]:
    """Return the cases of `family.cases` as arrays. InputError when `problems` finds any."""
    if faults := problems([(request.pipeline, s) for s in request.samples], None, request.files, request.config):
        raise InputError(faults)
    asked = [value_of(ObjectPrompts, sample.prompts) for sample in request.samples]
    numbers = [sample.number for sample in request.samples]
    dims = static_dims(request.config)
    shapes = cases(
        CaseRequest(request.layout, request.pipeline, request.reference, asked, numbers, request.padding, dims)
    )
    pictures = [images.read(request.files[sample.pictures[0]]) for sample in request.samples]
    rows = [
        {**picture_arrays(p, request.config), **prompt_arrays(request, [prompts], (p.height, p.width))}
        for p, prompts in zip(pictures, asked, strict=True)
    ]
    return (_case(shape, [rows[i] for i in shape.samples]) for shape in shapes)


def _case(shape: CaseShape, rows: Sequence[Mapping[str, Array]]) -> Case:
    import numpy as np

    return Case(shape.name, shape.samples, {name: np.concatenate([row[name] for row in rows]) for name in rows[0]})


def picture_arrays(picture: Image.Image, config: Mapping[str, Json]) -> dict[str, Array]:
    """Return what a picture alone gives, one row of each: images [1, 3, size, size] float32."""
    return {"images": images.padded_input(picture, static_dims(config)["image_size"], MEAN, STD)[None]}


def prompt_arrays(request: PromptRequest, prompts: Sequence[object], size: tuple[int, int]) -> dict[str, Array]:
    """Return what prompts on one picture give, a row for each. BuildError when one is wrong.

    request: without samples; prompts: ObjectPrompts; size: height and width of the picture
    """
    import numpy as np

    dims = static_dims(request.config)
    side = dims["mask_size"]
    height, width = images.fitted_size(size, dims["image_size"])
    clicks, logits, has_mask = [], [], []
    inside = images.fitted_size(size, side)
    for prompt in (prompt for prompt in prompts if isinstance(prompt, ObjectPrompts)):
        interactive.check(prompt, size)
        own = interactive.clicks(prompt)
        clicks.append(own if prompt.boxes else [*own, (0.0, 0.0, NO_POINT)])
        logits.append(interactive.earlier_mask(prompt.mask, request, size, inside, side)[None])
        has_mask.append(float(prompt.mask is not None))
    coordinates, labels = interactive.click_arrays(clicks, (width / size[1], height / size[0]))
    return {
        "point_coords": coordinates,
        "point_labels": labels,
        "mask_input": np.stack(logits),
        "has_mask_input": np.array(has_mask, np.float32),
    }


def problems(
    samples: Sequence[tuple[str, SampleParams]],
    tokenizer: Path | None,
    files: Mapping[str, Path],
    config: Mapping[str, Json] | None,
) -> list[tuple[Keys, str]]:
    """Return all that is wrong with pictures and prompts, and where."""
    return interactive.problems([sample for _, sample in samples], files)

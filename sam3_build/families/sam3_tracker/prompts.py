"""Takes pictures, points, boxes and masks, returns the inputs of networks: a user's, and those parity is measured on.

Conventions of SAM 3's tracker: a picture is squashed to the network's square, values -1 to 1; points and corners of
boxes are in its pixels; labels 1 and 0 of points.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.documents import value_of
from sam3_build.errors import BuildError, InputError, Keys
from sam3_build.families.sam3_tracker.config import static_dims
from sam3_build.families.sam3_tracker.family import FAMILY, Clicks, case_shapes, points_of
from sam3_build.params import SampleParams
from sam3_build.pipeline import images, interactive
from sam3_build.pipeline.cases import Case, PromptRequest
from sam3_build.pipeline.interactive import ObjectPrompts
from sam3_build.spec import CaseRequest, Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    Array = NDArray[np.generic]

# Values from -1 to 1.
MEAN = STD = (0.5, 0.5, 0.5)


def make_cases(request: PromptRequest) -> Iterator[Case]:
    """Yield the cases of `family.case_shapes` as arrays. InputError when `problems` finds any."""
    import numpy as np

    if faults := problems([(request.pipeline, s) for s in request.samples], None, request.files, request.config):
        raise InputError(faults)
    kind = FAMILY.laid_out(request.layout).pipeline(request.pipeline).prompts
    asked: list[Clicks | ObjectPrompts] = [value_of(kind, sample.prompts) for sample in request.samples]
    numbers = [sample.number for sample in request.samples]
    pictures = [images.read(request.files[sample.pictures[0]]) for sample in request.samples]
    shapes = case_shapes(
        CaseRequest(request.layout, request.pipeline, request.reference, asked, numbers, request.padding, {})
    )
    for shape in shapes:
        rows = [
            {
                **picture_arrays(pictures[i], request.config),
                **_prompt_arrays(request, [asked[i]], (pictures[i].height, pictures[i].width)),
            }
            for i in shape.samples
        ]
        yield Case(shape.name, shape.samples, {name: np.concatenate([row[name] for row in rows]) for name in rows[0]})


def picture_arrays(picture: Image.Image, config: Mapping[str, Json]) -> dict[str, Array]:
    """Return what a picture alone gives: pixel_values [1, 3, size, size] float32."""
    side = static_dims(config)["image_size"]
    return {"pixel_values": images.network_input(picture, (side, side), MEAN, STD)[None]}


def prompt_arrays(request: PromptRequest, prompts: Sequence[object], size: tuple[int, int]) -> dict[str, Array]:
    """Return what prompts on one picture give, a row for each. BuildError when one is wrong.

    request: without samples; prompts: those of the layout; size: height and width of the picture
    """
    asked = [prompt for prompt in prompts if isinstance(prompt, Clicks | ObjectPrompts)]
    for prompt in asked:
        interactive.check(prompt, size)
    return _prompt_arrays(request, asked, size)


def problems(
    samples: Sequence[tuple[str, SampleParams]],
    tokenizer: Path | None,
    files: Mapping[str, Path],
    config: Mapping[str, Json] | None,
) -> list[tuple[Keys, str]]:
    """Return all that is wrong with pictures and prompts, and where."""
    return interactive.problems([sample for _, sample in samples], files)


def _prompt_arrays(
    request: PromptRequest, asked: Sequence[Clicks | ObjectPrompts], size: tuple[int, int]
) -> dict[str, Array]:
    """Return what prompts on a picture of this size give, one object each, batch first."""
    import numpy as np

    dims = static_dims(request.config)
    points = [points_of(prompts) for prompts in asked]
    boxes = [[(box.x, box.y, box.x + box.w, box.y + box.h) for box in prompts.boxes] for prompts in asked]
    if len({len(own) for own in boxes}) > 1:
        raise BuildError("prompts with a box and without are asked together; ask those with a box afterwards")
    scale = (dims["image_size"] / size[1], dims["image_size"] / size[0])
    coordinates, labels = interactive.click_arrays(points, scale) if points[0] else _no_clicks(points)
    corners = np.array(boxes, np.float64).reshape(len(asked), -1, 4)
    arrays: dict[str, Array] = {
        "input_points": coordinates[:, None],
        "input_labels": labels[:, None].astype(np.int64),
        "input_boxes": (corners * (*scale, *scale)).astype(np.float32),
    }
    names = [prompts.mask for prompts in asked if isinstance(prompts, ObjectPrompts)]
    if names:
        side = dims["grid_4"]
        logits = [interactive.earlier_mask(name, request, size, (side, side), side) for name in names]
        arrays["input_masks"] = np.stack(logits)[:, None]
        arrays["has_masks"] = np.array([name is not None for name in names])[:, None]
    return arrays


def _no_clicks(points: Sequence[Sequence[object]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    import numpy as np

    if any(points):
        raise BuildError("prompts with points and without are asked together; ask those with points afterwards")
    return np.zeros((len(points), 0, 2), np.float32), np.zeros((len(points), 0), np.float32)

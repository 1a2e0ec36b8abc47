"""Takes pictures, points, boxes and masks, returns the inputs of networks: a user's, and those parity is measured on.

Conventions of SAM 1: the picture's longer side is brought to the network's, it is normalised and then padded with
zeros; points and corners of boxes are in its pixels; without a box, (0, 0) labelled -1 stands behind the points.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from sam3_build.families.sam1.family import FAMILY, static_dims
from sam3_build.pipeline import images, interactive
from sam3_build.pipeline.cases import Case, PromptRequest
from sam3_build.pipeline.interactive import NO_POINT, ObjectPrompts
from sam3_build.pipeline.interactive import problems as problems
from sam3_build.spec import Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    Array = NDArray[np.generic]

# In grey levels.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def make_cases(request: PromptRequest) -> Iterator[Case]:
    """Return the cases of `family.cases` as arrays. InputError when `problems` finds any."""
    return interactive.picture_cases(request, FAMILY, ObjectPrompts, picture_arrays, prompt_arrays)


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

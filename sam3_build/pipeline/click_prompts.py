"""Takes pictures, points, boxes and masks, returns the inputs of networks: a user's, and those parity is measured on.

For families whose networks are those of `click_networks`. Conventions of SAM 3's tracker: a picture is squashed to the
network's square, values -1 to 1; points and corners of boxes are in its pixels; labels 1 and 0 of points.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError
from sam3_build.pipeline import images, interactive
from sam3_build.pipeline.cases import Case, PromptRequest
from sam3_build.pipeline.click_cases import PREVIOUS_MASK, SEPARATE, Clicks, points_of
from sam3_build.pipeline.interactive import ObjectPrompts
from sam3_build.spec import Json, ModelFamily

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    Array = NDArray[np.generic]

# Values from -1 to 1.
MEAN = STD = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class ClickPrompts:
    """What `prompts.py` of such a family has, as methods."""

    family: ModelFamily

    def make_cases(self, request: PromptRequest) -> Iterator[Case]:
        """Return the cases of `click_cases.case_shapes` as arrays. InputError when `problems` finds any."""
        kind = ObjectPrompts if request.layout == PREVIOUS_MASK else Clicks
        return interactive.picture_cases(request, self.family, kind, self.picture_arrays, self.prompt_arrays)

    def picture_arrays(self, picture: Image.Image, config: Mapping[str, Json]) -> dict[str, Array]:
        """Return what a picture alone gives: pixel_values [1, 3, size, size] float32."""
        side = self.family.static_dims(config)["image_size"]
        return {"pixel_values": images.network_input(picture, (side, side), MEAN, STD)[None]}

    def prompt_arrays(
        self, request: PromptRequest, prompts: Sequence[object], size: tuple[int, int]
    ) -> dict[str, Array]:
        """Return what prompts on one picture give, a row for each. BuildError when one is wrong.

        request: without samples; prompts: those of the layout; size: height and width of the picture
        """
        import numpy as np

        asked = [prompt for prompt in prompts if isinstance(prompt, Clicks | ObjectPrompts)]
        for prompt in asked:
            interactive.check(prompt, size)
        dims = self.family.static_dims(request.config)
        scale = (dims["image_size"] / size[1], dims["image_size"] / size[0])
        if request.layout == SEPARATE:
            rows = [interactive.clicks(prompts) or points_of(prompts) for prompts in asked]
            coordinates, labels = interactive.click_arrays(rows, scale)
            return {"point_coords": coordinates, "point_labels": labels.astype(np.int64)}
        points = [points_of(prompts) for prompts in asked]
        boxes = [[(box.x, box.y, box.x + box.w, box.y + box.h) for box in prompts.boxes] for prompts in asked]
        if len({len(own) for own in boxes}) > 1:
            raise BuildError("prompts with a box and without are asked together; ask those with a box afterwards")
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

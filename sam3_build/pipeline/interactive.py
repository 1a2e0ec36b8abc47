"""Prompts for one object on a picture, by points, a box or a mask, as SAM 1 and SAM 2 take them. No torch.

Points and boxes become clicks: x and y in pixels of the picture, and a label. A box is two of them, its corners.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sam3_build.documents import value_of
from sam3_build.errors import BuildError, InputError, Keys
from sam3_build.params import SampleParams
from sam3_build.pipeline import images
from sam3_build.pipeline.cases import Case, PromptRequest
from sam3_build.pipeline.prompts import Box, Point
from sam3_build.spec import CaseRequest, CaseShape, Json, ModelFamily

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    Array = NDArray[np.generic]
    Floats = NDArray[np.float32]
    Flags = NDArray[np.bool_]

# The labels of clicks: 0 and 1 are those of points, these the corners of a box; NO_POINT fills up.
TOP_LEFT, BOTTOM_RIGHT, NO_POINT = 2.0, 3.0, -1.0

# What stands for a mask's inside, and negated for its outside, where a network takes logits.
LOGIT = 10.0

# A batched case holds this many samples at most: at full size each costs as much as a case of its own.
LARGEST_BATCH = 4

# x, y, label.
Click = tuple[float, float, float]


class Prompted(Protocol):
    """Points and boxes for one object: ObjectPrompts, or a prompt on a frame of a clip."""

    @property
    def points(self) -> tuple[Point, ...]:
        """Points on it, or beside it."""

    @property
    def boxes(self) -> tuple[Box, ...]:
        """At most one, around it."""


@dataclass(frozen=True)
class ObjectPrompts:
    """What may be asked of a picture: one object, by points, a box around it, a mask of it, or several of these."""

    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()
    mask: str | None = None


# ------------------------------------------------------------------ clicks


def clicks(prompts: Prompted) -> list[Click]:
    """Return points in their order, then the corners of the box."""
    found: list[Click] = [(point.x, point.y, float(point.label)) for point in prompts.points]
    for box in prompts.boxes:
        found += [(box.x, box.y, TOP_LEFT), (box.x + box.w, box.y + box.h, BOTTOM_RIGHT)]
    return found


def click_arrays(rows: Sequence[Sequence[Click]], scale: tuple[float, float]) -> tuple[Floats, Floats]:
    """Return coordinates [rows, clicks, 2] and labels [rows, clicks], float32; all rows have equally many clicks.

    scale: what brings x and y to pixels of the network's input
    BuildError when a row has more clicks than another: whatever fills up a row changes its answer.
    """
    import numpy as np

    if len({len(row) for row in rows}) > 1:
        raise BuildError(
            f"prompts of {', '.join(str(len(row)) for row in rows)} points, counting corners of boxes, are asked "
            "together; ask those of equally many, and the others afterwards"
        )
    given = np.array(rows, np.float64)
    coordinates = (given[..., :2] * scale).astype(np.float32)
    return coordinates, given[..., 2].astype(np.float32)


def check(prompts: Prompted, size: tuple[int, int], picture: str = "the picture") -> None:
    """Refuse prompts that are none for one object of a picture. size: its height and width. BuildError says why."""
    height, width = size
    if len(prompts.boxes) > 1:
        raise BuildError(f"has {len(prompts.boxes)} boxes; a prompt is for one object, so give one box")
    for box in prompts.boxes:
        shown = f"the box {box.x:g},{box.y:g},{box.w:g},{box.h:g}"
        if not box.label:
            raise BuildError(f"{shown} is negative; a box goes around what is meant, negative points say what is not")
        if box.x >= width or box.y >= height or box.x + box.w <= 0 or box.y + box.h <= 0:
            raise BuildError(
                f"{shown} lies outside {picture}, which is {width} x {height} pixels; a box is x,y,width,height in "
                "pixels from the top left corner"
            )
    for point in prompts.points:
        if not (0 <= point.x < width and 0 <= point.y < height):
            raise BuildError(
                f"the point {point.x:g},{point.y:g} lies outside {picture}, which is {width} x {height} pixels; a "
                "point is x,y in pixels from the top left corner"
            )


# ------------------------------------------------------------------ masks


def mask_of(role: str | None, files: Mapping[str, Path], size: tuple[int, int]) -> Flags | None:
    """Return the mask that the file of a role holds, [height, width]; None without a role.

    BuildError when it cannot be read or has not the picture's `size` (height, width).
    """
    if role is None:
        return None
    try:
        mask = images.read_mask(files[role])
    except OSError as error:
        raise BuildError(f"{files[role].name} cannot be read: {error.strerror}") from error
    if mask.shape != size:
        raise BuildError(
            f"{files[role].name} is {mask.shape[1]} x {mask.shape[0]} pixels, and its picture {size[1]} x {size[0]}: "
            "a mask has the picture's size"
        )
    return mask


def mask_logits(mask: Flags | None, size: tuple[int, int], side: int) -> Floats:
    """Return [side, side]: LOGIT inside, -LOGIT outside, 0 of no mask; averaged where an area holds both.

    size: height and width that the whole mask is brought to; what is right of it and below is outside
    """
    import cv2
    import numpy as np

    logits: Floats = np.zeros((side, side), np.float32)
    if mask is not None:
        height, width = size
        share = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        logits -= LOGIT
        logits[:height, :width] = (2 * share - 1) * LOGIT
    return logits


def earlier_mask(
    role: str | None, request: PromptRequest, size: tuple[int, int], inside: tuple[int, int], side: int
) -> Floats:
    """Return [side, side], the logits that a network takes for an earlier mask: those it gave, or those of a file.

    size: height and width of the picture; inside: see `mask_logits`. BuildError when they do not suit
    """
    if role is None or role not in request.logits:
        return mask_logits(mask_of(role, request.files, size), inside, side)
    logits = request.logits[role]
    if logits.shape != (side, side):
        raise BuildError(
            f"the earlier mask has {' x '.join(map(str, logits.shape))} logits, and this model takes {side} x {side}: "
            "give what it found itself"
        )
    return logits


# ------------------------------------------------------------------ samples


def problems(
    samples: Sequence[tuple[str, SampleParams]],
    tokenizer: Path | None,
    files: Mapping[str, Path],
    config: Mapping[str, Json] | None,
) -> list[tuple[Keys, str]]:
    """Return all that is wrong with pictures and what is asked of them, and where: `("samples", 1, "points")`."""
    faults: list[tuple[Keys, str]] = []
    size = cache(lambda role: _size(files[role]))
    for _, sample in samples:
        prompts, (picture,) = value_of(ObjectPrompts, sample.prompts), sample.pictures
        at: Keys = ("samples", sample.number)
        with _collecting(faults, *at, "image"):
            of_picture, name = size(picture), files[picture].name
            with _collecting(faults, *at, "points"):
                check(ObjectPrompts(points=prompts.points), of_picture, name)
            with _collecting(faults, *at, "boxes"):
                check(ObjectPrompts(boxes=prompts.boxes), of_picture, name)
            with _collecting(faults, *at, "mask"):
                mask_of(prompts.mask, files, of_picture)
    return faults


def _size(file: Path) -> tuple[int, int]:
    try:
        picture = images.read(file)
    except OSError as error:
        raise BuildError(f"{file.name} cannot be read: {error.strerror}") from error
    return picture.height, picture.width


@contextmanager
def _collecting(faults: list[tuple[Keys, str]], *keys: str | int) -> Iterator[None]:
    try:
        yield
    except BuildError as error:
        faults.append((keys, str(error)))


def picture_cases(
    request: PromptRequest,
    family: ModelFamily,
    kind: type,
    picture_arrays: Callable[[Image.Image, Mapping[str, Json]], Mapping[str, Array]],
    prompt_arrays: Callable[[PromptRequest, Sequence[object], tuple[int, int]], Mapping[str, Array]],
) -> Iterator[Case]:
    """Return the cases of pictures that the family declares: rows of its samples. InputError when `problems` finds any.

    kind: what its pipeline asks with; picture_arrays, prompt_arrays: those of the family's `prompts.py`
    """
    import numpy as np

    numbered = [(request.pipeline, sample) for sample in request.samples]
    if faults := problems(numbered, request.tokenizer, request.files, request.config):
        raise InputError(faults)
    asked: list[object] = [value_of(kind, sample.prompts) for sample in request.samples]
    rows: list[dict[str, Array]] = []
    for sample, prompts in zip(request.samples, asked, strict=True):
        picture = images.read(request.files[sample.pictures[0]])
        of_prompts = prompt_arrays(request, [prompts], (picture.height, picture.width))
        rows.append({**picture_arrays(picture, request.config), **of_prompts})
    numbers, dims = [sample.number for sample in request.samples], family.static_dims(request.config)
    shapes = family.cases(
        CaseRequest(request.layout, request.pipeline, request.reference, asked, numbers, request.padding, dims)
    )
    return (
        Case(
            shape.name,
            shape.samples,
            {name: np.concatenate([rows[i][name] for i in shape.samples]) for name in rows[0]},
        )
        for shape in shapes
    )


def case_shapes(request: CaseRequest, count: Callable[[ObjectPrompts], int]) -> tuple[CaseShape, ...]:
    """Return every sample alone, then a batch of two or more with equally many points: the most frequent number.

    Nothing fills up a row: a point that is none is a token as well, and changes the answer.

    count: how many points a prompt becomes
    """
    counts = [count(prompts) for prompts in request.prompts if isinstance(prompts, ObjectPrompts)]
    cases = [
        CaseShape(f"sample{number}", (i,), {"batch": 1, "num_points": points})
        for i, (number, points) in enumerate(zip(request.numbers, counts, strict=True))
    ]
    for points, _ in Counter(counts).most_common(1):
        alike = [i for i, other in enumerate(counts) if other == points]
        together = (alike * 2)[: max(2, min(len(alike), LARGEST_BATCH))]
        cases.append(CaseShape("batch", tuple(together), {"batch": len(together), "num_points": points}))
    return tuple(cases)

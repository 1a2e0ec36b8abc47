"""Takes the masks that PyTorch and a target give of prompts, returns how the two differ, and draws it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sam3_build.compare.details import Overlay, write_details
from sam3_build.compare.outputs import PictureRow, row_of
from sam3_build.drawing.captions import object_prompt
from sam3_build.drawing.overlay import WIDTH, panels, write_overlay
from sam3_build.drawing.sheet import PROMPTS, SHEET, Entry, Sheet
from sam3_build.drawing.sheet import WIDTH as SMALL
from sam3_build.errors import BuildError
from sam3_build.pipeline.masks import Masks, boxes_around
from sam3_build.pipeline.prompts import boxes_of, points_of
from sam3_build.plugins import CompareRequest
from sam3_build.results.masks.statistics import ComparedMasks, MaskStatistics
from sam3_build.spec import Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sam3_build.drawing.overlay import Panels
    from sam3_build.plugins import Arrays, Picture

LEGEND = f"{PROMPTS} Red areas: where the two differ. Thick red box: seen by one of the two alone."


def compare(request: CompareRequest, out: Path) -> Mapping[str, Json]:
    """Return the statistics over all rows of all cases, and write what was found.

    That is `details.json`; `overlay.<case>.<row>.png`, of each row that can be compared; the sheet, each sample once.
    """
    statistics = MaskStatistics()
    sheet = Sheet(f"PyTorch fp32 against {request.target}{request.parity}", request.target, LEGEND)
    drawn = set[int]()
    overlays: list[Overlay] = []
    for case in request.cases:
        expected, actual = case.expected(), case.actual()
        for row, sample in enumerate(case.samples):
            place = PictureRow(case.name, row, sample)
            sides = row_of(expected, row), row_of(actual, row)
            if not statistics.comparable(place, *sides):
                continue
            asked = Asked(request.picture(sample, 0), cast("Mapping[str, Json]", request.samples[sample]["prompts"]))
            own, other = (_find(request, outputs, asked.picture.shape[:2]) for outputs in sides)
            found = statistics.add(place, own, other)
            words, notes = _caption(found, own, other), _differences(found, own, other)
            file, repeats = f"overlay.{case.name}.{row}.png", sample in drawn
            write_overlay(out / file, _drawn(asked, found, own, other, WIDTH))
            title = f"sample {sample}: {object_prompt(asked.prompts)}" + (
                f" ({case.name}, row {row})" if repeats else ""
            )
            overlays.append(Overlay(file, title, words, notes, _metrics(found), repeats))
            if not repeats:
                drawn.add(sample)
                sheet.add(Entry(asked.words, words, notes, _drawn(asked, found, own, other, SMALL)))
    sheet.write(out / SHEET)
    write_details(out, {"samples": list(request.samples.values()), "prompts": list(statistics.prompts)}, overlays)
    return statistics.summary()


@dataclass(frozen=True)
class Asked:
    """A picture, and the prompts on it as their document."""

    picture: Picture
    prompts: Mapping[str, Json]

    @property
    def words(self) -> str:
        """Return the prompts in words."""
        return object_prompt(self.prompts)


@dataclass(frozen=True)
class Shown:
    """The mask that is taken and the box around it, as overlays take them; none of an object that is not visible."""

    masks: NDArray[np.bool_]
    boxes: NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """Positions of the masks of the two sides."""

    expected: int = 0
    actual: int = 0


def _find(request: CompareRequest, outputs: Arrays, size: tuple[int, ...]) -> Masks:
    result = request.find(outputs, (size[0], size[1]), request.score_threshold)
    if not isinstance(result, Masks):
        raise BuildError(f"the family's `find` gives {type(result).__name__} for a pipeline whose result is masks")
    count = len(result.scores)
    if result.masks.shape != (count, *size) or not 0 <= result.chosen < count:
        raise BuildError(
            f"the family's `find` gives {count} scores with masks {list(result.masks.shape)} and takes mask "
            f"{result.chosen}, where masks {[count, *size]} are expected"
        )
    return result


def _drawn(asked: Asked, found: ComparedMasks, expected: Masks, actual: Masks, width: int) -> Panels:
    # A tie is no difference: both sides show the mask that the reference takes.
    other = _shown(actual, expected.chosen if found.tied else actual.chosen)
    own = _shown(expected, expected.chosen)
    pairs = [Pair()] if len(own.masks) and len(other.masks) else []
    boxes, points = boxes_of(asked.prompts), points_of(asked.prompts)
    return panels(asked.picture, boxes, own, other, pairs, width, points=points)


def _shown(side: Masks, which: int) -> Shown:
    masks = side.masks[[which]] if side.visible and side.masks[which].any() else side.masks[:0]
    return Shown(masks, boxes_around(masks))


def _caption(found: ComparedMasks, expected: Masks, actual: Masks) -> str:
    """Return what is seen, such as `mask 1 of 4, score 0.912; mask IoU 0.991`."""
    sides = [_taken(side) for side in (actual, expected)]
    words = sides[0] if sides[0] == sides[1] else f"{sides[0]}; {sides[1]} by PyTorch"
    # Rounded down: an IoU that is not 1 never reads as if it were.
    overlap = "" if found.mask_iou is None else f"; mask IoU {math.floor(found.mask_iou * 1000) / 1000:.3f}"
    return f"{words}{overlap}"


def _taken(side: Masks) -> str:
    if not side.visible:
        return "not visible"
    which = f"mask {side.chosen} of {len(side.masks)}" if len(side.masks) > 1 else "a mask"
    return f"{which}, score {side.scores[side.chosen]:.3f}"


def _differences(found: ComparedMasks, expected: Masks, actual: Masks) -> tuple[str, ...]:
    """Return what a user would notice: an object that one side alone sees, another mask."""
    if not found.agree:
        return ("object lost" if expected.visible else "object new",)
    if found.tied:
        return (f"mask {found.taken[1]}, which ties with {found.taken[0]}",)
    return () if found.same_choice else (f"mask {found.taken[1]} where {found.taken[0]} is expected",)


def _metrics(found: ComparedMasks) -> dict[str, float]:
    """Return the metrics of one prompt."""
    measured = {"mask_iou": found.mask_iou, "score": found.score}
    counts = {"choice": float(not found.same_choice), "visible": float(not found.agree)}
    return {**{name: value for name, value in measured.items() if value is not None}, **counts}

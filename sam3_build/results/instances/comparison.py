"""Takes what is found in pictures by PyTorch and by a target, returns how the two differ, and draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sam3_build.compare.details import Overlay, write_details
from sam3_build.compare.outputs import PictureRow, row_of
from sam3_build.drawing.captions import prompt
from sam3_build.drawing.overlay import panels, write_overlay
from sam3_build.drawing.sheet import SHEET, WIDTH, Entry, Sheet
from sam3_build.errors import BuildError
from sam3_build.pipeline.instances import Instances
from sam3_build.pipeline.prompts import boxes_of, points_of
from sam3_build.plugins import CompareRequest
from sam3_build.results.instances.captions import differences, found
from sam3_build.results.instances.statistics import OF_PAIRS, InstanceStatistics
from sam3_build.spec import Json

if TYPE_CHECKING:
    from sam3_build.plugins import Arrays


def compare(request: CompareRequest, out: Path) -> Mapping[str, Json]:
    """Return the statistics over all rows of all cases, and write what was found.

    That is `details.json`; `overlay.<case>.<row>.png`, of each row that can be compared; the sheet, each sample once.
    """
    statistics = InstanceStatistics(request.score_threshold)
    sheet = Sheet(f"PyTorch fp32 against {request.target}{request.parity}", request.target)
    on_sheet, drawn = set[int](), set[int]()
    overlays: list[Overlay] = []
    for case in request.cases:
        expected, actual = case.expected(), case.actual()
        for row, sample in enumerate(case.samples):
            place = PictureRow(case.name, row, sample)
            sides = row_of(expected, row), row_of(actual, row)
            comparable = statistics.comparable(place, *sides)
            if not comparable and sample in on_sheet:
                continue
            picture, document = request.picture(sample, 0), request.samples[sample]
            prompts = cast("Mapping[str, Json]", document["prompts"])
            boxes, points = boxes_of(prompts), points_of(prompts)
            found_expected = _find(request, sides[0], picture.shape[:2])
            found_actual = _find(request, sides[1], picture.shape[:2]) if comparable else None
            pairs = statistics.add(place, found_expected, found_actual) if found_actual else ()
            if not request.draws:
                continue
            measured = statistics.pictures[-1]
            if comparable:
                file = f"overlay.{case.name}.{row}.png"
                write_overlay(out / file, panels(picture, boxes, found_expected, found_actual, pairs, points=points))
                overlays.append(_overlay(file, place, prompts, measured, repeats=sample in drawn))
                drawn.add(sample)
            if sample not in on_sheet:
                on_sheet.add(sample)
                small = panels(picture, boxes, found_expected, found_actual, pairs, WIDTH, points=points)
                sheet.add(Entry(prompt(prompts), found(measured), differences(measured), small))
    if not request.draws:
        return statistics.summary()
    sheet.write(out / SHEET)
    details: dict[str, Json] = {
        "score_threshold": request.score_threshold,
        "samples": list(request.samples.values()),
        "pictures": list(statistics.pictures),
    }
    write_details(out, details, overlays)
    return statistics.summary()


def _find(request: CompareRequest, outputs: Arrays, size: tuple[int, ...]) -> Instances:
    result = request.find(outputs, (size[0], size[1]), request.score_threshold)
    if not isinstance(result, Instances):
        raise BuildError(f"the family's `find` gives {type(result).__name__} for a pipeline whose result is instances")
    count = len(result.scores)
    if result.boxes.shape != (count, 4) or result.masks.shape != (count, *size):
        raise BuildError(
            f"the family's `find` gives {count} scores with boxes {list(result.boxes.shape)} and masks "
            f"{list(result.masks.shape)}, where boxes {[count, 4]} and masks {[count, *size]} are expected"
        )
    return result


def _overlay(
    file: str, place: PictureRow, prompts: Mapping[str, Json], measured: Mapping[str, Json], *, repeats: bool
) -> Overlay:
    title = f"sample {place.sample}: {prompt(prompts)}" + (f" ({place.case}, row {place.row})" if repeats else "")
    return Overlay(file, title, found(measured), differences(measured), _metrics(measured), repeats)


def _metrics(measured: Mapping[str, Json]) -> dict[str, float]:
    """Return the metrics of one picture; those of pairs, where there is a pair."""
    pairs = cast("Sequence[Mapping[str, float]]", measured["pairs"])
    lost, added = (len(cast("Sequence[Json]", measured[side])) for side in ("lost", "added"))
    worst = dict.fromkeys(OF_PAIRS, min) | {"score": max}
    of_pairs = {metric: worst[metric](pair[metric] for pair in pairs) for metric in OF_PAIRS if pairs}
    presence = measured.get("presence")
    disagrees = {"presence": float(not presence["agrees"])} if isinstance(presence, Mapping) else {}
    return {"count": float(lost + added), **of_pairs, **disagrees}

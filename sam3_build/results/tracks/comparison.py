"""Takes what is followed through clips by PyTorch and by a target, returns how the two differ, and draws it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.compare.details import Overlay, write_details
from sam3_build.drawing.overlay import write_overlay
from sam3_build.drawing.sheet import SHEET, WIDTH, Entry, Sheet
from sam3_build.errors import BuildError
from sam3_build.pipeline.tracks import Tracks
from sam3_build.plugins import ComparedCase, CompareRequest
from sam3_build.results.tracks import frames
from sam3_build.results.tracks.statistics import TrackStatistics
from sam3_build.spec import Json

if TYPE_CHECKING:
    from sam3_build.plugins import Arrays


def compare(request: CompareRequest, out: Path) -> Mapping[str, Json]:
    """Return the statistics over all clips, and write what was followed.

    That is `details.json`; `overlay.<case>.<frame>.png`, of some frames of each clip, those that differ among them; the
    sheet, which shows these frames. A case is one clip; one that is `like` the case before it is held against what is
    built gave there.
    """
    statistics = TrackStatistics()
    title = f"PyTorch fp32 against {request.target}{request.parity}"
    sheet = Sheet(title, request.target, frames.LEGEND, "frame")
    overlays: list[Overlay] = []
    before: tuple[str, Tracks] | None = None
    for case in request.cases:
        (sample,) = _sample(case)
        if case.like:
            if before and before[0] == case.like:
                statistics.reorder(case.name, before[1], _find(request, case, sample, case.actual()))
            continue
        before, sides = None, (case.expected(), case.actual())
        if not statistics.comparable(case.name, *sides):
            continue
        expected, actual = (_find(request, case, sample, outputs) for outputs in sides)
        clip, before = statistics.add(case.name, expected, actual), (case.name, actual)
        for frame in frames.chosen(clip) if request.draws else ():
            seen = frames.Seen(frame, request.picture(sample, frame), frames.asked(request.samples[sample], frame))
            words, notes = frames.caption(clip, frame), frames.differences(clip, frame)
            file, heading = f"overlay.{case.name}.{frame}.png", f"{case.name}, frame {frame}{seen.words}"
            write_overlay(out / file, frames.drawn(seen, clip, expected, actual))
            sheet.add(Entry(heading, words, notes, frames.drawn(seen, clip, expected, actual, WIDTH)))
            overlays.append(Overlay(file, heading, words, notes, frames.metrics(clip, frame)))
    if not request.draws:
        return statistics.summary()
    sheet.write(out / SHEET)
    details: dict[str, Json] = {"samples": list(request.samples.values()), "clips": list(statistics.clips)}
    write_details(out, details, overlays)
    return statistics.summary()


def _sample(case: ComparedCase) -> tuple[int, ...]:
    if len(case.samples) != 1 or not case.frames:
        raise BuildError(
            f"case {case.name!r} has {len(case.samples)} samples of {case.frames} frames: tracks are compared clip by "
            "clip, one sample with frames in a case"
        )
    return case.samples


def _find(request: CompareRequest, case: ComparedCase, sample: int, outputs: Arrays) -> Tracks:
    height, width = request.picture(sample, 0).shape[:2]
    result = request.find(outputs, (height, width), request.score_threshold)
    if not isinstance(result, Tracks):
        raise BuildError(f"the family's `find` gives {type(result).__name__} for a pipeline whose result is tracks")
    if len(set(result.ids.tolist())) < len(result.ids):
        raise BuildError(f"case {case.name!r}: the family's `find` gives two objects of one id: {result.ids.tolist()}")
    shape = (case.frames, len(result.ids), height, width)
    if result.masks.shape != shape or result.visible.shape != shape[:2]:
        raise BuildError(
            f"case {case.name!r}: the family's `find` gives masks {list(result.masks.shape)} and visible "
            f"{list(result.visible.shape)}, where masks {list(shape)} and visible {list(shape[:2])} are expected"
        )
    return result

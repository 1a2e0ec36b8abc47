"""Tracks, compared by the kind itself and judged by its gates: equal ones pass, every planted fault is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam3_build.compare.details import DETAILS, overlays_of
from sam3_build.compare.judge import Row, Verdict, judge, result_gates
from sam3_build.drawing.palette import COLOURS, DIFFERENCE, MEANT
from sam3_build.drawing.sheet import MOST, SHEET, Sheet
from sam3_build.errors import BuildError
from sam3_build.pipeline.tracks import Tracks
from sam3_build.plugins import ComparedCase, CompareRequest
from sam3_build.results.tracks.frames import chosen
from sam3_build.results.tracks.result import RESULT
from sam3_build.results.tracks.statistics import TrackStatistics, compared
from sam3_build.spec import PIPELINE, Comparison, Kind

FRAMES, HEIGHT, WIDTH = 6, 120, 160
BOX = {"label": 1, "x": 10, "y": 70, "w": 40, "h": 40}
SAMPLE = {
    "prompts": {
        "prompts": [
            {"frame": 0, "object": 1, "points": [{"label": 1, "x": 30, "y": 30}]},
            {"frame": 0, "object": 2, "boxes": [BOX]},
            {"frame": 5, "remove": 2},
        ]
    }
}
Arrays = dict[str, np.ndarray]


def clip(frames: int = FRAMES) -> Arrays:
    """Objects 1 and 2, squares of 40 pixels that move to the right, one above the other; 2 hides in the last frame."""
    masks, visible = np.zeros((frames, 2, HEIGHT, WIDTH), np.bool_), np.ones((frames, 2), np.bool_)
    for frame in range(frames):
        x = 10 + frame * 60 // frames
        masks[frame, 0, 10:50, x : x + 40] = True
        masks[frame, 1, 70:110, x : x + 40] = True
    visible[-1, 1] = False
    return {
        "ids": np.array([1, 2]),
        "masks": masks,
        "visible": visible,
        "scores": np.full((frames, 2), 0.9, np.float32),
    }


def found(outputs: Mapping[str, np.ndarray], size: tuple[int, int], threshold: float) -> Tracks:
    assert size == (HEIGHT, WIDTH) and threshold == 0.5
    return Tracks(outputs["ids"], outputs["masks"], outputs["visible"], outputs["scores"])


def request(expected: Mapping[str, Arrays], actual: Mapping[str, Arrays]) -> CompareRequest:
    def case(name: str, sample: int) -> ComparedCase:
        frames = len(expected[name]["masks"])
        return ComparedCase(name, (sample,), frames, "", lambda: expected[name], lambda: actual[name])

    return CompareRequest(
        cases=[case(name, sample) for sample, name in enumerate(expected)],
        samples=dict.fromkeys(range(len(expected)), SAMPLE),
        picture=lambda sample, frame: np.full((HEIGHT, WIDTH, 3), 90 + 10 * sample + frame, np.uint8),
        find=found,
        score_threshold=0.5,
        target="onnxruntime fp16",
        parity="",
    )


def judged(
    actual: Mapping[str, Arrays], precision: str = "fp16", expected: Callable[[], Arrays] = clip
) -> tuple[Row, ...]:
    """Return the verdicts on these clips, each held against `expected`; draws nothing."""
    statistics = TrackStatistics()
    for name, outputs in actual.items():
        sides = expected(), outputs
        if statistics.comparable(name, *sides):
            statistics.add(name, *(found(side, (HEIGHT, WIDTH), 0.5) for side in sides))
    return rows(statistics.summary(), precision)


def rows(measured: Mapping[str, object], precision: str = "fp16") -> tuple[Row, ...]:
    gates = {RESULT.output: result_gates(RESULT, precision, {})}
    comparison = Comparison(
        PIPELINE, "a vs b", precision, None, "x", None, tuple(gates), gates, Kind.RESULT, result=RESULT.name
    )
    written = json.loads(json.dumps({"outputs": {RESULT.output: measured}}, allow_nan=False))
    return judge(comparison, written)


def failed(found_rows: tuple[Row, ...]) -> dict[str, str]:
    return {row.metric: str(row.reason) for row in found_rows if row.verdict == Verdict.FAIL}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_equal_tracks_pass_every_gate_and_all_are_judged(precision: str) -> None:
    same = judged({"clip0": clip(), "clip1": clip()}, precision)
    assert {row.metric: row.verdict for row in same if row.metric != "order"} == dict.fromkeys(
        ("mask_iou", "visible", "objects", "mean_iou", "nonfinite", "incomparable"), Verdict.PASS
    )
    assert {row.metric: row.value for row in same}["mean_iou"] == 1


def test_default_gates_are_the_documented_ones() -> None:
    assert {metric.name: (metric.exact, metric.reduced) for metric in RESULT.metrics} == {
        "mask_iou": (0.999, 0.98),
        "visible": (0, 0),
        "objects": (0, 0),
        "mean_iou": (0.999, 0.995),
        "order": (0.999, 0.98),
    }


def test_objects_in_another_order_are_the_same_tracks() -> None:
    turned = {name: array[::-1] if name == "ids" else array[:, ::-1] for name, array in clip().items()}
    assert failed(judged({"clip0": turned})) == {}


def swapped_from_frame_3_on(arrays: Arrays) -> None:
    arrays["masks"][3:] = arrays["masks"][3:, ::-1]


def swapped_in_frame_3_alone(arrays: Arrays) -> None:
    arrays["masks"][3] = arrays["masks"][3, ::-1]


def lost_for_one_frame(arrays: Arrays) -> None:
    arrays["visible"][3, 1] = False


def seen_in_the_last_frame(arrays: Arrays) -> None:
    arrays["visible"][-1, 1] = True


def shifted_by_a_pixel(arrays: Arrays) -> None:
    arrays["masks"][2, 1] = np.roll(arrays["masks"][2, 1], 1, axis=1)


def shifted_everywhere(arrays: Arrays) -> None:
    arrays["masks"][:] = np.roll(arrays["masks"], 1, axis=3)


def under_another_id(arrays: Arrays) -> None:
    arrays["ids"] = np.array([1, 7])


def nan_in_a_score(arrays: Arrays) -> None:
    arrays["scores"][4, 1] = np.nan


def one_frame_less(arrays: Arrays) -> None:
    arrays["masks"] = arrays["masks"][:-1]


# fault -> metric -> what its reason must say
FAULTS: dict[Callable[[Arrays], None], dict[str, str]] = {
    swapped_in_frame_3_alone: {
        "mask_iou": "object 1 of clip0 at frame 3; objects 1 and 2 of clip0 are swapped at frame 3",
        "mean_iou": "are swapped at frame 3",
    },
    swapped_from_frame_3_on: {
        "mask_iou": "object 1 of clip0 at frame 3; objects 1 and 2 of clip0 are swapped from frame 3 on",
        "mean_iou": "clip0, the least of it object 1 at frame 3 (IoU 0); objects 1 and 2",
    },
    lost_for_one_frame: {
        "visible": "visible is 1, not <= 0: object 2 of clip0 at frame 3 is lost",
        "mean_iou": "clip0, the least of it object 2 at frame 3 (IoU 0)",
    },
    seen_in_the_last_frame: {
        "visible": "object 2 of clip0 at frame 5 is new",
        "mean_iou": "object 2 at frame 5 (IoU 0)",
    },
    shifted_by_a_pixel: {
        "mask_iou": "mask_iou is 0.9512, not >= 0.98: object 2 of clip0 at frame 2",
    },
    shifted_everywhere: {
        "mask_iou": "object 1 of clip0 at frame 0",
        "mean_iou": "clip0, the least of it object 1 at frame 0 (IoU 0.9512)",
    },
    under_another_id: {
        "objects": "objects is 2, not <= 0: object 2 of clip0 is lost; object 7 of clip0 is new",
        "mean_iou": "object 2 at frame 0 (IoU 0)",
    },
    nan_in_a_score: {
        "nonfinite": "clip0 has 1 in scores, the first one (nan) at [4, 1]",
        "mask_iou": "no element was compared",
        "visible": "no element was compared",
        "objects": "no element was compared",
        "mean_iou": "no element was compared",
        "order": "no element was compared",
    },
    one_frame_less: {
        "incomparable": "clip0: masks is bool[5, 2, 120, 160] where bool[6, 2, 120, 160] is expected",
        "mask_iou": "clip0: masks is bool",
        "visible": "clip0: masks is bool",
        "objects": "clip0: masks is bool",
        "mean_iou": "clip0: masks is bool",
        "order": "clip0: masks is bool",
    },
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_every_planted_fault_is_caught_and_named(fault: Callable[[Arrays], None]) -> None:
    planted = clip()
    fault(planted)
    reasons = failed(judged({"clip0": planted}))
    assert reasons.keys() == FAULTS[fault].keys(), reasons
    assert all(said in reasons[metric] for metric, said in FAULTS[fault].items()), reasons


def test_objects_that_are_swapped_for_a_while_are_said_to_be_until_when() -> None:
    planted = clip()
    planted["masks"][1:4] = planted["masks"][1:4, ::-1]
    reasons = failed(judged({"clip0": planted}))
    assert reasons["mask_iou"].endswith("; objects 1 and 2 of clip0 are swapped in frames 1 to 3")


def test_the_worst_clip_is_the_one_that_is_named() -> None:
    planted = {"clip0": clip(), "clip1": clip()}
    shifted_by_a_pixel(planted["clip0"])
    shifted_everywhere(planted["clip1"])
    reasons = failed(judged(planted))
    assert "clip1, the least of it" in reasons["mean_iou"] and "mean_iou is 0.9512" in reasons["mean_iou"]


def test_a_few_pixels_of_noise_pass_reduced_gates_and_fail_those_of_fp32() -> None:
    planted = clip()
    planted["masks"][2, 0, 10, 30:36] ^= True
    assert failed(judged({"clip0": planted})) == {}
    assert failed(judged({"clip0": planted}, "fp32")).keys() == {"mask_iou"}


def test_a_reference_that_sees_nothing_leaves_gates_of_masks_not_run_and_never_passed() -> None:
    def empty() -> Arrays:
        return clip() | {"visible": np.zeros((FRAMES, 2), np.bool_)}

    verdicts = {row.metric: row for row in judged({"clip0": empty()}, expected=empty)}
    not_run = {metric for metric, row in verdicts.items() if row.verdict == Verdict.NOT_RUN}
    assert not_run == {"mask_iou", "mean_iou", "order"}
    assert "add a prompt for something that the model follows" in str(verdicts["mean_iou"].reason)


def test_masks_of_objects_that_are_not_visible_count_for_nothing() -> None:
    planted = clip()
    planted["masks"][-1, 1] = True
    assert failed(judged({"clip0": planted})) == {}


def test_a_case_that_is_no_clip_or_tracks_of_other_frames_are_refused_by_name(tmp_path: Path) -> None:
    asked = request({"clip0": clip()}, {"clip0": clip()})
    (case,) = asked.cases
    with pytest.raises(BuildError, match="case 'clip0' has 2 samples of 6 frames"):
        RESULT.compare(replace(asked, cases=[replace(case, samples=(0, 1))]), tmp_path)
    with pytest.raises(BuildError, match=r"case 'clip0': .* masks \[6, 2, 120, 160\] .* masks \[7, 2, 120, 160\]"):
        RESULT.compare(replace(asked, cases=[replace(case, frames=7)]), tmp_path)


# ------------------------------------------------------------------ pictures


def test_two_objects_of_one_id_are_refused(tmp_path: Path) -> None:
    twice = {"a": {**clip(), "ids": np.array([1, 1])}}
    with pytest.raises(BuildError, match=r"two objects of one id: \[1, 1\]"):
        RESULT.compare(request(twice, twice), tmp_path)


def test_a_result_of_another_kind_is_refused(tmp_path: Path) -> None:
    wrong = replace(request({"a": clip()}, {"a": clip()}), find=lambda outputs, size, threshold: None)
    with pytest.raises(BuildError, match="gives NoneType for a pipeline whose result is tracks"):
        RESULT.compare(wrong, tmp_path)


def panels_of(file: Path) -> list[np.ndarray]:
    with Image.open(file) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    return [pixels[:, start : start + 336] for start in (0, 344, 688)]


@pytest.fixture(scope="module")
def compared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is written of a clip in which object 2 is lost at frame 3, and swapped with object 1 at frame 4."""
    folder, planted = tmp_path_factory.mktemp("tracks"), clip()
    lost_for_one_frame(planted)
    planted["masks"][4] = planted["masks"][4, ::-1]
    RESULT.compare(request({"clip0": clip()}, {"clip0": planted}), folder)
    return folder


def test_every_frame_is_drawn_with_its_objects_in_their_colours_and_red_where_they_differ(
    compared_folder: Path,
) -> None:
    names = [*(f"overlay.clip0.{frame}.png" for frame in range(FRAMES)), SHEET]
    assert sorted(path.name for path in compared_folder.glob("overlay*.png")) == names
    for frame, red, lost in ((2, False, False), (3, True, True), (4, True, False)):
        _, there, here = panels_of(compared_folder / names[frame])
        assert (here == DIFFERENCE).all(2).any() == red
        assert (there == COLOURS[0]).all(2).any() and (here == COLOURS[0]).all(2).any(), "the box of object 1"
        assert (here == COLOURS[1]).all(2).any() != lost, "the box of object 2, where it is seen"
    asked, *_ = panels_of(compared_folder / names[0])
    assert (asked == MEANT).all(2).any(), "the box of a prompt, on its frame"


def test_details_say_of_each_frame_what_is_seen_and_what_differs(compared_folder: Path) -> None:
    overlays = overlays_of(json.loads((compared_folder / DETAILS).read_bytes()))
    assert [overlay.title for overlay in overlays] == [
        "clip0, frame 0: object 1 by 1 point, object 2 by a box",
        *(f"clip0, frame {frame}" for frame in range(1, 5)),
        "clip0, frame 5: without 2",
    ]
    assert [(overlay.caption, overlay.differences) for overlay in overlays[2:]] == [
        ("2 visible, 2 by PyTorch; smallest mask IoU 1.000", ()),
        ("1 visible, 2 by PyTorch; smallest mask IoU 1.000", ("object 2 lost",)),
        ("2 visible, 2 by PyTorch; smallest mask IoU 0.000", ("objects 1 and 2 swapped",)),
        ("1 visible, 1 by PyTorch; smallest mask IoU 1.000", ()),
    ]
    assert [dict(overlay.metrics) for overlay in overlays[3:5]] == [
        {"mask_iou": 1, "visible": 1},
        {"mask_iou": 0, "visible": 0},
    ]


def in_another_order(arrays: Arrays) -> Arrays:
    """Return what a clip gives when its objects are given in another order."""
    return {name: array[::-1] if name == "ids" else array[:, ::-1].copy() for name, array in arrays.items()}


def reordered(folder: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[Arrays], None]) -> tuple[Row, ...]:
    """Return the verdicts on a sound clip and on the same in another order, with a fault in that; draws no overlay."""
    monkeypatch.setattr("sam3_build.results.tracks.comparison.write_overlay", lambda path, drawn: path.touch())
    monkeypatch.setattr("sam3_build.results.tracks.frames.panels", lambda *_: ())
    monkeypatch.setattr(Sheet, "write", lambda self, path: path.touch())
    planted = in_another_order(clip())
    fault(planted)
    asked = request({"clip0": clip(), "clip0.reordered": clip()}, {"clip0": clip(), "clip0.reordered": planted})
    own, again = asked.cases
    measured = RESULT.compare(replace(asked, cases=[own, replace(again, samples=(0,), like="clip0")]), folder)
    assert len(overlays_of(json.loads((folder / DETAILS).read_bytes()))) == FRAMES, "the clip itself, once"
    return rows(measured)


def test_objects_given_in_another_order_are_to_be_the_same_tracks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found_rows = {row.metric: row for row in reordered(tmp_path, monkeypatch, lambda arrays: None)}
    assert (found_rows["order"].value, found_rows["order"].verdict) == (1, Verdict.PASS)


@pytest.mark.parametrize("fault", [shifted_by_a_pixel, lost_for_one_frame], ids=lambda fault: fault.__name__)
def test_what_depends_on_the_order_of_objects_fails_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[Arrays], None]
) -> None:
    reasons = failed(reordered(tmp_path, monkeypatch, fault))
    frame = 2 if fault is shifted_by_a_pixel else 3
    assert reasons.keys() == {"order"} and f": object 1 of clip0.reordered at frame {frame}" in reasons["order"]


def test_where_no_clip_has_two_objects_their_order_is_not_run() -> None:
    (order,) = [row for row in judged({"clip0": clip()}) if row.metric == "order"]
    assert (order.verdict, order.reason) == (Verdict.NOT_RUN, "no clip has prompts for two objects on one frame")


def test_of_a_long_clip_the_frames_that_differ_are_among_those_that_are_drawn() -> None:
    expected, planted = clip(40), clip(40)
    planted["visible"][17, 0] = False
    frames = chosen(compared(*(found(side, (HEIGHT, WIDTH), 0.5) for side in (expected, planted))))
    assert len(frames) == MOST and {0, 17} <= {*frames} and list(frames) == sorted(frames)


def test_objects_that_texts_find_have_no_order_to_be_given_in() -> None:
    arrays, statistics = clip(), TrackStatistics()
    side = replace(found(arrays, (HEIGHT, WIDTH), 0.5), texts=np.array([0, 1]))
    statistics.add("clip0", side, side)
    summary = statistics.summary()
    assert summary["absent"] == ["order"] and summary["not_run"] == {}
    statistics.add("clip1", replace(side, texts=None), side)
    assert statistics.summary()["absent"] == [] and "order" in statistics.summary()["not_run"]

"""What a family's host code may do in a loop: what it feeds and returns is held to its declaration, by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sam3_build.errors import BuildError
from sam3_build.params import LoopParams
from sam3_build.pipeline import loop
from sam3_build.pipeline.cases import ListedCase
from sam3_build.spec import TensorSpec
from sam3_build.stages.reference import require_finite

INPUTS = {"state": TensorSpec("state", "float32", ("objects", 4))}
TRACK = LoopParams(name="track", outputs=("ids", "masks"), given=("points",), feeds=(), frames=("pixels",))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (
            {"stat": np.zeros((2, 4), np.float32)},
            "a loop's call of decode: there is no input 'stat'; did you mean 'state'?",
        ),
        ({}, "a loop's call of decode: input 'state' is missing; the model takes state"),
        ({"state": np.zeros((2, 4))}, "input 'state' is float64[2, 4], the model takes float32[objects, 4]"),
    ],
)
def test_a_call_that_does_not_suit_its_component_is_named(arrays: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(BuildError) as refused:
        loop.check("decode", arrays, INPUTS)
    assert words in str(refused.value)


def test_a_loop_returns_what_its_family_declares() -> None:
    right = {"ids": np.zeros(1), "masks": np.zeros(1)}
    assert loop.returned(TRACK, right) is right
    with pytest.raises(BuildError, match=r"^loop track returns ids, mask, and its family declares ids, masks$"):
        loop.returned(TRACK, {"ids": np.zeros(1), "mask": np.zeros(1)})


def test_what_a_loop_made_of_finite_calls_and_is_not_finite_is_the_loops() -> None:
    with pytest.raises(BuildError, match=r"loop track itself gives 1 NaN .* in 'masks', .* look at track in loops\.py"):
        require_finite("clip0", {"masks": np.array([np.nan])}, "track")


def test_the_calls_that_are_kept_are_the_first_two_the_last_the_largest_and_one_of_each_kind(tmp_path: Path) -> None:
    recorder = loop.Recorder("decode", lambda arrays: {"out": arrays["x"] * 2})
    for number, (size, kind) in enumerate(
        [(1, ""), (1, ""), (1, "click"), (5, ""), (1, "click"), (1, "mask"), (1, "")]
    ):
        x = np.full(size, number, np.float32)
        recorder({"x": x}, kind=kind)
        x[:] = -1  # a loop may go on with its own arrays
    assert recorder.write(tmp_path / "decode", "clip0") == [f"clip0.{call:05}" for call in (0, 1, 2, 3, 5, 6)]
    with np.load(tmp_path / "decode" / "clip0.00003.npz") as call:
        assert call["inputs/x"].tolist() == [3.0] * 5 and call["outputs/out"].tolist() == [6.0] * 5
    assert recorder.write(tmp_path / "decode", "clip1") == [], "each case begins anew"


def test_frames_are_read_when_they_are_asked_for_and_lack_nothing(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    for frame in range(2):
        np.savez(tmp_path / "samples" / f"clip0.{frame:05}.npz", pixels=np.full(3, frame))
    frames = loop.Frames(ListedCase("clip0.reordered", (0,), 3, "clip0"), TRACK, {"samples": tmp_path / "samples"})
    assert len(frames) == 3 and frames[1]["pixels"].tolist() == [1, 1, 1], "those of the case that it shares them with"
    with pytest.raises(BuildError, match=r"frame 2 of case 'clip0.reordered' lacks one of pixels"):
        _ = frames[2]
    with pytest.raises(IndexError):
        _ = frames[3]

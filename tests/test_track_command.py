"""Prompts of `sam3-build track`, and what is wrong with them; the command itself runs with SAM 2's miniature."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from build_space import ROOT
from PIL import Image

from sam3_build.commands.track_prompts import Typed, asked
from sam3_build.drawing import film
from sam3_build.errors import BuildError
from sam3_build.pipeline import clips


def test_each_box_is_an_object_and_all_points_are_one() -> None:
    found = asked(Typed(points="pos:3,4;neg:5,6", boxes="pos:1,2,3,4;pos:5,6,7,8", frame=2))
    assert [one.words() for one in found] == [
        {"frame": 2, "object": None, "mask": None, "points": [[3, 4], [5, 6]], "point_labels": [1, 0]},
        {"frame": 2, "object": None, "mask": None, "boxes": [[1, 2, 4, 6]], "box_labels": [1]},
        {"frame": 2, "object": None, "mask": None, "boxes": [[5, 6, 12, 14]], "box_labels": [1]},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "give a list of prompts"),
        ('[{"frames": 1}]', r"prompts.json\[0\]: there is no 'frames'; did you mean 'frame'"),
        ('[{"frame": -1, "points": "pos:1,1"}]', r"\[0\].frame is -1; give a whole number"),
        ('[{"points": [1, 2]}]', r"\[0\].points is \[1, 2\]; give text"),
        ('[{"points": "pos:1"}]', r"\[0\].points: "),
        ("[3]", r"\[0\]: 3 is no prompt"),
    ],
)
def test_a_wrong_file_of_prompts_is_one_message(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "prompts.json").write_text(text)
    with pytest.raises(BuildError, match=message):
        asked(Typed(file=tmp_path / "prompts.json"))


def test_masks_of_a_file_are_beside_it(tmp_path: Path) -> None:
    (tmp_path / "prompts.json").write_text(json.dumps([{"object": 4, "mask": "cup.png"}]))
    (one,) = asked(Typed(file=tmp_path / "prompts.json"))
    assert one.words() == {"frame": 0, "object": 4, "mask": tmp_path / "cup.png"}
    with pytest.raises(BuildError, match="nothing is asked for: give --points"):
        asked(Typed())


def test_a_video_is_written_with_all_its_frames_also_when_the_run_breaks_off(tmp_path: Path) -> None:
    frames = [np.full((41, 61, 3), 40 * i, np.uint8) for i in range(5)]
    with film.written(tmp_path / "whole.webm", Fraction(25)) as whole:
        for frame in frames:
            whole.add(frame)
    assert clips.length(tmp_path / "whole.webm") == 5
    assert clips.rate(tmp_path / "whole.webm") == 25
    seen = [np.asarray(frame).mean() for frame in clips.Clip([tmp_path / "whole.webm"], 5)]
    assert np.abs(np.diff(seen) - 40).max() < 6
    with pytest.raises(BuildError, match="broken"), film.written(tmp_path / "part.webm", Fraction(25)) as part:
        part.add(frames[0])
        raise BuildError("broken")
    assert clips.length(tmp_path / "part.webm") == 1
    assert [path.name for path in tmp_path.glob("*.part")] == []


def test_a_sheet_has_its_frames_in_order() -> None:
    page = film.sheet([(i, np.full((60, 80, 3), 20 * i, np.uint8)) for i in range(6)])
    assert page.shape == (2 * 66 + 6, 4 * 86 + 6, 3)
    assert [int(page[10, 6 + 86 * i + 40, 0]) for i in range(4)] == [0, 20, 40, 60]
    assert [int(page[76, 6 + 86 * i + 40, 0]) for i in range(3)] == [80, 100, 255]


def test_a_model_without_clips_is_one_message(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "sam3_build", "track", str(tmp_path), "--points", "pos:1,1", "--from", str(tmp_path)]
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert "has no model.json" in done.stderr
    assert len(done.stderr.splitlines()) == 1

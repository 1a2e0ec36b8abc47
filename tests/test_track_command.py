"""Prompts of `sam3-build track`, and what is wrong with them; the command itself runs with SAM 2's miniature."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import miniature
import numpy as np
import pytest
import runnable
from build_space import ROOT
from PIL import Image

from sam3_build.commands.asked import Typed, asked
from sam3_build.drawing import film
from sam3_build.errors import BuildError
from sam3_build.pipeline import clips
from sam3_build.pipeline.marks import Asked, Marks
from sam3_build.pipeline.prompts import Box, Point
from sam3_build.runtime.ask import Ask


def test_several_boxes_alone_are_as_many_objects_and_all_else_is_one() -> None:
    boxes = Box(1, 1, 2, 3, 4), Box(1, 5, 6, 7, 8)
    ((one,),) = asked(Typed(boxes="pos:1,2,3,4", corners=["5,6,12,14"], frame=2), ["clip"])
    assert (one.frame, one.object, one.marks.boxes) == (2, None, boxes)
    assert [own.marks for own in Ask(one.marks).objects] == [Marks(boxes=(box,)) for box in boxes]
    ((one,),) = asked(Typed(points="pos:3,4", places=["5,6"], boxes="pos:1,2,3,4"), ["clip"])
    assert Ask(one.marks).objects == (Ask(one.marks),)
    assert one.marks == Marks(boxes=boxes[:1], points=(Point(1, 3, 4), Point(1, 5, 6)))


def test_a_file_has_prompts_for_all_or_by_name_and_its_masks_are_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps({"clip": [{"object": 4, "mask": "cup.png"}], "b.png": []}))
    ((one,),) = asked(Typed(file=file), ["clip"])
    assert one == Asked(Marks(), tmp_path / "cup.png", 0, 4)
    for typed, name, message in (
        (Typed(), "clip", "nothing is asked for in clip: give --text"),
        (Typed(file=file), "b.png", "nothing is asked for in b.png"),
        (Typed(file=file), "clop", r"prompts.json says nothing of clop; did you mean 'clip'\?"),
    ):
        with pytest.raises(BuildError, match=message):
            asked(typed, [name])
    file.write_text("[]")
    with pytest.raises(BuildError, match="nothing is asked for in clip"):
        asked(Typed(file=file), ["clip"])


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


# ------------------------------------------------------------------ clips that cannot be followed to their end


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runnable.write(tmp_path_factory.mktemp("built") / "sam2", verdict=runnable.PASSED, manifest="sam2_mini")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A clip, one with a broken frame, one with a smaller frame, one that was cut short; and files of prompts."""
    for name in ("clip", "broken", "smaller"):
        shutil.copytree(miniature.SCENES / "clip", tmp_path / name)
    (tmp_path / "broken" / "00002.png").write_text("no picture")
    Image.new("RGB", (80, 60)).save(tmp_path / "smaller" / "00002.png")
    random = np.random.default_rng(0)
    with film.written(tmp_path / "whole.webm", Fraction(10)) as video:
        for _ in range(12):
            video.add(random.integers(0, 255, (120, 160, 3), np.uint8))
    whole = (tmp_path / "whole.webm").read_bytes()
    (tmp_path / "cut.webm").write_bytes(whole[: len(whole) // 2])
    Image.new("L", (160, 120), 255).save(tmp_path / "all.png")
    point = {"object": 1, "points": "pos:30,44"}
    for name, prompts in {
        "gone": [{**point, "frame": 9}],
        "twice": [{"object": 1, "mask": "all.png"}, point],
        "words": [{"text": "star"}],
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(prompts))
    return tmp_path


@pytest.mark.ci
@pytest.mark.parametrize(
    ("words", "message", "kept"),
    [
        (["clip", "--prompts", "gone.json"], "there is no frame 9: the clip has 5, from 0 to 4", None),
        (["clip", "--point", "30,44", "--frame", "5"], "there is no frame 5", None),
        (["clip", "--prompts", "twice.json"], "object 1 is prompted on frame 0 already; a mask is the answer", None),
        (
            ["clip", "--prompts", "words.json"],
            "finds nothing in clips by words; its pipelines are interactive, video",
            None,
        ),
        (["clip", "--point", "300,44"], "the point 300,44 lies outside its frame, which is 160 x 120 pixels", None),
        (["broken", "--point", "30,44"], "00002.png cannot be read as a picture", 2),
        (["smaller", "--point", "30,44"], "frame 2 is 80 x 60 pixels, and the others 160 x 120", 2),
        (["cut.webm", "--point", "30,44"], "frames, and 12 are asked for", 5),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_one_message_and_what_was_done_is_kept(
    built: Path, here: Path, words: list[str], message: str, kept: int | None
) -> None:
    options = ["--from", str(built), "--out", "out", "--save", "sheet,video,masks,json"]
    argv = [sys.executable, "-m", "sam3_build", "track", *words, *options]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, cwd=here, env=environ, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1 and message in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    if kept is None:
        assert not (here / "out").exists()
        return
    stem = Path(words[0]).stem
    frames = json.loads((here / "out" / f"{stem}.json").read_bytes())["frames"]
    assert [frame["index"] for frame in frames] == list(range(kept))
    assert clips.length(here / "out" / f"{stem}.webm") == kept
    assert (here / "out" / f"{stem}.png").is_file() and not list((here / "out").glob("*.part"))
    assert f"{kept} frames -> out/{stem}.webm" in done.stdout

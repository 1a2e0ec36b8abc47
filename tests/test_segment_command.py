"""`sam3-build segment`: what is typed, what is written, and one clear message for what is wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import miniature
import numpy as np
import pytest
import runnable
from PIL import Image
from typer.testing import CliRunner

from sam3_build.__main__ import app
from sam3_build.errors import BuildError

SCENES = miniature.SCENES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runnable.write(tmp_path_factory.mktemp("built") / "published", verdict=runnable.PASSED)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def segment(*words: str | Path) -> list[str]:
    """Return the lines that are printed. BuildError as the command raises it."""
    done = CliRunner().invoke(app, ["segment", *map(str, words)], catch_exceptions=False, standalone_mode=False)
    return done.output.splitlines()


def written(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_picture_and_a_text_give_an_overlay_and_a_line(folder: Path, here: Path) -> None:
    lines = segment(SCENES / "scene1.png", "--text", "red circle", "--from", folder)
    assert lines[0] == f"onnxruntime fp32, from {folder}"
    assert "scene1.png: 2 red circle; scores 0.95, 0.98 -> segmented/scene1.png" in lines[1]
    assert written(here) == {"segmented/scene1.png"}
    assert Image.open(here / "segmented" / "scene1.png").size == (168, 168)


def test_all_that_can_be_saved_of_a_folder_is_saved(folder: Path, here: Path) -> None:
    shutil.copy(SCENES / "scene1.png", here)
    shutil.copy(SCENES / "heldout508.png", here)
    (here / "notes.txt").write_text("no picture")
    lines = segment(
        *(here, "--text", "red circle", "--text", "star", "--max", "3", "--from", folder),
        *("--out", here / "out", "--save", "overlay,masks,coco", "--times"),
    )
    document = json.loads((here / "out" / "coco.json").read_bytes())
    assert [image["file_name"] for image in document["images"]] == ["heldout508.png", "scene1.png"]
    assert [category["name"] for category in document["categories"]] == ["red circle", "star"]
    of_scene = [one for one in document["annotations"] if one["image_id"] == 2]
    assert [one["category_id"] for one in of_scene] == [1, 1, 2]
    assert written(here / "out") >= {"scene1.png", "heldout508.png", "scene1.mask0.png", "scene1.mask2.png"}
    mask = np.asarray(Image.open(here / "out" / "scene1.mask0.png"))
    assert set(np.unique(mask)) == {0, 255} and int((mask > 0).sum()) == of_scene[0]["area"]
    assert any(line.startswith("vision_encoder ") and line.endswith("2 runs") for line in lines)


# The examples of the script that this command stands in for, after the program's name, with the miniature's words.
LINES = (
    ("--text", "red circle", "--output", "output-text.png"),
    ("--boxes", "pos:40,40,30,30", "--output", "output-box.png"),
    ("--boxes", "pos:40,40,30,30;neg:24,108,45,41", "--output", "output-box-posneg.png"),
    ("--text", "star", "--boxes", "neg:40,40,30,30", "--output", "output-text-box.png"),
)


@pytest.mark.parametrize("words", LINES, ids=lambda words: words[-1])
def test_the_words_of_the_usual_script_are_understood(folder: Path, here: Path, words: Sequence[str]) -> None:
    segment(
        *("--image", SCENES / "scene1.png", *words),
        *("--model-dir", folder, "--tokenizer", miniature.TOKENIZER),
    )
    assert written(here) == {words[-1]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.png", "--text", "star"], "there is no file none.png"),
        (["cut.png", "--text", "star"], "cut.png cannot be read as a picture"),
        (["empty", "--text", "star"], "empty holds no picture"),
        (["--text", "star"], "name a picture, or a folder of them"),
        (["one.png"], "nothing is asked for: give --text, --boxes or --box"),
        (["one.png", "--text", " "], "text[0] is empty"),
        (["one.png", "--text", "zeppelin"], "no token for some word of 'zeppelin'"),
        (["one.png", "--boxes", "40,40,30,30"], "--boxes: box '40,40,30,30' is not 'pos:x,y,w,h'"),
        (["one.png", "--box", "1,2,3"], "--box: '1,2,3' is not 'x1,y1,x2,y2'"),
        (["one.png", "--box", "500,500,510,510"], "boxes[0]: the box 500,500,10,10 lies outside"),
        (["one.png", "--text", "star", "--save", "overlays"], "there is no 'overlays'; did you mean 'overlay'?"),
        (["one.png", "--text", "star", "--target", "onnxruntim"], "did you mean 'onnxruntime'?"),
        (["one.png", "two/one.png", "--text", "star"], "would both be written as one.png"),
        (["one.png", "two/other.png", "--text", "star", "--output", "x.png"], "--output x.png is one picture, and 2"),
    ],
)
def test_what_is_wrong_is_one_message_and_nothing_is_written(
    folder: Path, here: Path, words: list[str], message: str
) -> None:
    (here / "two").mkdir()
    (here / "empty").mkdir()
    for name in ("one.png", "two/one.png", "two/other.png"):
        shutil.copy(SCENES / "scene1.png", here / name)
    (here / "cut.png").write_bytes((SCENES / "scene1.png").read_bytes()[:300])
    before = written(here)
    with pytest.raises(BuildError) as error:
        segment(*words, "--from", folder)
    assert message in str(error.value)
    assert written(here) == before


def test_a_bare_folder_of_onnx_files_is_refused_without_a_traceback(folder: Path) -> None:
    argv = [sys.executable, "-m", "sam3_build", "segment", SCENES / "scene1.png", "--text", "star"]
    done = subprocess.run([*argv, "--from", folder / "decoder"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "has no model.json, only decoder.fp32.onnx" in done.stderr

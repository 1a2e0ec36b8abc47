"""`sam3-build segment`: what is typed, what is written, and one clear message for what is wrong."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import miniature
import numpy as np
import pytest
import runnable
import typer
from PIL import Image
from typer.testing import CliRunner

from sam3_build.__main__ import app
from sam3_build.commands.built import built
from sam3_build.errors import BuildError
from sam3_build.pipeline.postprocess import cleaned, steps

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


def test_overlapping_instances_go_and_masks_are_cleaned_on_request(folder: Path, here: Path) -> None:
    words = (SCENES / "scene1.png", "--text", "red circle", "--from", folder, "--save", "masks")
    _, plain = segment(*words, "--out", "plain")
    _, clean = segment(*words, "--nms", "box:0.5", "--post", "open:15,smooth:6", "--out", "clean")
    assert "2 red circle" in plain and "2 red circle" in clean
    before, after = (np.asarray(Image.open(here / f / "scene1.mask0.png")) > 0 for f in ("plain", "clean"))
    assert (after != before).any() and np.array_equal(after, cleaned(before, steps("open:15,smooth:6")))


# The examples of usls' inference.py for SAM 3, and those of a Rust program for SAM 1 that are about pictures, as they
# stand after the program's name; and what is put in the place of their words, boxes and pictures to run the first.
USLS = """
--image ../../assets/sam3-demo.jpg --text "shoe" --model-dir ./onnx-models --tokenizer /path/to/tokenizer.json \
    --output output-text.png
--image ../../assets/sam3-demo.jpg --boxes "pos:480,290,110,360" --model-dir ./onnx-models \
    --tokenizer /path/to/tokenizer.json --output output-box.png
--image ../../assets/sam3-demo.jpg --boxes "pos:480,290,110,360;neg:370,280,115,375" --model-dir ./onnx-models \
    --tokenizer /path/to/tokenizer.json --output output-box-posneg.png
--image ../../assets/000000136466.jpg --text "handle" --boxes "neg:40,183,278,21" --model-dir ./onnx-models \
    --tokenizer /path/to/tokenizer.json --output output-text-box.png
"""
BURN = """
--model vit_h --image input.jpg --point 300,200 --output masks/
--model vit_l --image input.jpg --box 100,100,400,300 --output masks/
--model vit_b --input-dir images/ --prompt-file prompts.json --output-dir results/
"""
IN_MINIATURE = {
    "../../assets/sam3-demo.jpg": str(SCENES / "scene1.png"),
    "../../assets/000000136466.jpg": str(SCENES / "heldout524.png"),
    "/path/to/tokenizer.json": str(miniature.TOKENIZER),
    "shoe": "red circle",
    "handle": "star",
    "pos:480,290,110,360": "pos:40,40,30,30",
    "pos:480,290,110,360;neg:370,280,115,375": "pos:40,40,30,30;neg:24,108,45,41",
    "neg:40,183,278,21": "neg:93,43,75,70",
}


def lines(text: str) -> list[list[str]]:
    return [shlex.split(line) for line in text.strip().replace("\\\n", "").splitlines()]


def parsed(words: list[str]) -> dict[str, object]:
    """Return the options that a line gives, by the names of the command's parameters."""
    command = typer.main.get_command(app).commands["segment"]  # type: ignore[attr-defined]
    values = command.make_context("segment", words).params
    return {
        name: value for name, value in values.items() if value not in (None, [], (), False, "auto", "none", "overlay")
    }


def test_the_lines_of_usls_script_are_understood_as_they_stand() -> None:
    common = {"folder": Path("onnx-models"), "tokenizer": Path("/path/to/tokenizer.json")}
    demo, oven = {"image": [Path("../../assets/sam3-demo.jpg")]}, {"image": [Path("../../assets/000000136466.jpg")]}
    assert [parsed(words) for words in lines(USLS)] == [
        {**common, **demo, "text": ["shoe"], "output": Path("output-text.png")},
        {**common, **demo, "boxes": "pos:480,290,110,360", "output": Path("output-box.png")},
        {
            **common,
            **demo,
            "boxes": "pos:480,290,110,360;neg:370,280,115,375",
            "output": Path("output-box-posneg.png"),
        },
        {
            **common,
            **oven,
            "text": ["handle"],
            "boxes": "neg:40,183,278,21",
            "output": Path("output-text-box.png"),
        },
    ]


def test_the_lines_of_the_rust_program_are_understood_as_they_stand() -> None:
    assert [parsed(words) for words in lines(BURN)] == [
        {"folder": Path("vit_h"), "image": [Path("input.jpg")], "point": ["300,200"], "output": Path("masks")},
        {"folder": Path("vit_l"), "image": [Path("input.jpg")], "box": ["100,100,400,300"], "output": Path("masks")},
        {"folder": Path("vit_b"), "image": [Path("images")], "prompts": Path("prompts.json"), "out": Path("results")},
    ]


@pytest.mark.parametrize(
    ("words", "found"),
    list(zip(lines(USLS), ("2 red circle", "2 object", "2 object", "1 star"), strict=True)),
    ids=["text", "box", "posneg", "text and box"],
)
def test_the_lines_run_with_the_miniatures_words_boxes_and_pictures(
    folder: Path, here: Path, words: list[str], found: str
) -> None:
    (here / "onnx-models").symlink_to(folder)
    _, line = segment(*(IN_MINIATURE.get(word, word) for word in words))
    assert f": {found}; scores" in line and line.endswith(f"-> {words[-1]}")
    assert {name for name in written(here) if not name.startswith("onnx-models")} == {words[-1]}


@pytest.mark.ci
def test_points_boxes_and_masks_of_one_object_go_to_the_pipeline_that_takes_them(here: Path, tmp_path: Path) -> None:
    """SAM 1 in miniature, whose weights are random: each prompt is answered by one mask, and each matters."""
    folder = runnable.write(tmp_path / "sam1", verdict=runnable.PASSED, manifest="sam1_mini")
    Image.new("L", (168, 168), 255).save("mask.png")
    point, box = {"type": "point", "data": [60, 60]}, {"type": "rectangle", "data": [40, 40, 70, 70]}
    (here / "marks.json").write_text(json.dumps({"scene1.png": [point, {**point, "data": [90, 90], "label": 0}, box]}))
    seen = {}
    for name, words in {
        "point": ["--point", "60,60"],
        "points": ["--points", "pos:60,60;neg:90,90"],
        "box": ["--box", "40,40,70,70"],
        "both": ["--points", "pos:60,60;neg:90,90", "--boxes", "pos:40,40,30,30"],
        "marks": ["--prompts", "marks.json"],
        "mask": ["--point", "60,60", "--mask", "mask.png"],
        "boxes": ["--box", "40,40,70,70", "--box", "80,80,120,120"],
    }.items():
        segment(SCENES / "scene1.png", *words, "--from", folder, "--out", name, "--save", "masks")
        seen[name] = [np.asarray(Image.open(here / name / file)) for file in sorted(written(here / name))]
    assert {name: len(masks) for name, masks in seen.items()} == {**dict.fromkeys(seen, 1), "boxes": 2}
    assert np.array_equal(seen["both"], seen["marks"]) and np.array_equal(seen["boxes"][0], seen["box"][0])
    for one, other in (("point", "points"), ("points", "both"), ("point", "mask")):
        assert not np.array_equal(seen[one], seen[other])
    Image.new("L", (10, 10), 255).save("mask.png")
    for words, message in (
        (["--text", "star"], "this model takes no text; pipeline interactive takes boxes, points, mask"),
        (["--point", "500,60"], "the point 500,60 lies outside the picture, which is 168 x 168 pixels"),
        (["--boxes", "neg:40,40,30,30"], "is negative"),
        (["--point", "60,60", "--mask", "mask.png"], "mask.png is 10 x 10 pixels, and its picture 168 x 168"),
        (["--point", "60,60", "--mask", "none.png"], "none.png"),
    ):
        with pytest.raises(BuildError) as error:
            segment(SCENES / "scene1.png", *words, "--from", folder)
        assert message in str(error.value)


def test_a_bare_folder_of_onnx_files_is_refused_without_a_traceback(folder: Path, here: Path) -> None:
    """The folder that the lines above name, as that script leaves it."""
    (here / "onnx-models").mkdir()
    for name in ("vision-encoder", "text-encoder", "geometry-encoder", "decoder"):
        (here / "onnx-models" / f"{name}.onnx").write_bytes(b"")
    argv = [sys.executable, "-m", "sam3_build", "segment", *(IN_MINIATURE.get(w, w) for w in lines(USLS)[0])]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    assert (
        "onnx-models has no model.json, only decoder.onnx, geometry-encoder.onnx, text-encoder.onnx, "
        "vision-encoder.onnx: it says how pictures and words are prepared" in done.stderr
    )
    assert not (here / "output-text.png").exists()


def test_many_pictures_are_counted_on_a_terminal_and_only_there(folder: Path, here: Path) -> None:
    pty = pytest.importorskip("pty")  # not on Windows
    for name in ("scene1.png", "scene2.png"):
        shutil.copy(SCENES / name, here)
    argv = [sys.executable, "-m", "sam3_build", "segment", ".", "--text", "star", "--from", folder, "--out", "out"]
    main, side = pty.openpty()
    with subprocess.Popen(argv, stdout=side, stderr=side, env={**os.environ, "TERM": "xterm"}) as running:
        os.close(side)
        seen = b""
        while True:
            try:
                seen += (more := os.read(main, 4096))
            except OSError:  # Linux says so when the other end is closed
                break
            if not more:
                break
    os.close(main)
    # How often the bar is drawn between is a question of time.
    assert running.returncode == 0 and b"2/2" in seen
    assert b"scene1.png: 1 star" in seen and b"scene2.png: " in seen
    printed = segment(".", "--text", "star", "--from", folder, "--out", "out")
    assert len(printed) == 3 and "\x1b" not in "".join(printed)


def test_a_picture_is_not_written_over(folder: Path, here: Path) -> None:
    shutil.copy(SCENES / "scene1.png", here)
    before = (here / "scene1.png").read_bytes()
    for words in (["--out", "."], ["--output", "../" + here.name + "/scene1.png"]):
        with pytest.raises(BuildError, match=r"scene1.png is one of the pictures, and would be written over"):
            segment("scene1.png", "--text", "star", "--from", folder, *words)
    assert (here / "scene1.png").read_bytes() == before and written(here) == {"scene1.png"}


def test_marks_are_asked_of_all_pictures_or_of_each_by_its_name(folder: Path, here: Path) -> None:
    for name in ("scene1.png", "heldout538.png"):
        shutil.copy(SCENES / name, here)
    star, box = {"type": "text", "data": "star"}, {"type": "rectangle", "data": [19, 106, 48, 135]}
    (here / "marks.json").write_text(json.dumps([star]))
    (here / "each.json").write_text(json.dumps({"scene1.png": [star], "old/heldout538.png": [box]}))
    _, line = segment("scene1.png", "--prompts", "marks.json", "--text", "red circle", "--from", folder)
    assert "scene1.png: 2 red circle, 1 star" in line
    _, *lines = segment(
        *("--input-dir", here, "--prompt-file", "each.json", "--output-dir", "out", "--save", "coco"), "--from", folder
    )
    assert "heldout538.png: 3 object" in lines[0] and "scene1.png: 1 star" in lines[1]
    document = json.loads((here / "out" / "coco.json").read_bytes())
    names = {category["id"]: category["name"] for category in document["categories"]}
    assert [(one["image_id"], names[one["category_id"]]) for one in document["annotations"]] == [
        *[(1, "object")] * 3,
        (2, "star"),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.png", "--text", "star"], "there is no file none.png"),
        (["cut.png", "--text", "star"], "cut.png cannot be read as a picture"),
        (["empty", "--text", "star"], "empty holds no picture"),
        (["--text", "star"], "name a picture, or a folder of them"),
        (["one.png"], "nothing is asked for in one.png: give --text, --boxes, --box, --points"),
        (["one.png", "--text", " "], "text[0] is empty"),
        (["one.png", "--text", "zeppelin"], "no token for some word of 'zeppelin'"),
        (["one.png", "--boxes", "40,40,30,30"], "--boxes: box '40,40,30,30' is not 'pos:x,y,w,h'"),
        (["one.png", "--box", "1,2,3"], "--box: '1,2,3' is not 'x1,y1,x2,y2'"),
        (["one.png", "--point", "3,4"], "this model takes no points; pipeline image takes text, boxes"),
        (["one.png", "--text", "star", "--mask", "one.png"], "this model takes no mask; pipeline image takes"),
        (["one.png", "two/other.png", "--mask", "one.png"], "--mask one.png is of one picture, and 2 are given"),
        (["one.png", "--points", "pos:3"], "--points: point 'pos:3' is not 'pos:x,y'"),
        (["one.png", "--point", "3,4,1"], "--point: '3,4,1' is not 'x,y' (pixels)"),
        (["one.png", "--prompts", "none.json"], "--prompts: none.json cannot be read: No such file"),
        (["one.png", "--prompts", "one.png"], "--prompts: one.png is no JSON"),
        (["one.png", "--prompts", "bad.json"], "--prompts bad.json: mark 0: there is no type 'txet'"),
        (["one.png", "--prompts", "each.json"], "--prompts each.json says nothing of one.png; did you mean 'one.jpg'?"),
        (["one.png", "--box", "500,500,510,510"], "boxes[0]: the box 500,500,10,10 lies outside"),
        (["one.png", "--text", "star", "--save", "overlays"], "there is no 'overlays'; did you mean 'overlay'?"),
        (["one.png", "--text", "star", "--target", "onnxruntim"], "did you mean 'onnxruntime'?"),
        (["one.png", "--text", "star", "--nms", "masks:0.7"], "nms: 'masks:0.7' is not mask:IOU, box:IOU or none"),
        (["one.png", "--text", "star", "--post", "open:4"], "post: 'open:4': the size is an odd number of pixels"),
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
    (here / "bad.json").write_text(json.dumps([{"type": "txet", "data": "star"}]))
    (here / "each.json").write_text(json.dumps({"one.jpg": []}))
    (here / "cut.png").write_bytes((SCENES / "scene1.png").read_bytes()[:300])
    before = written(here)
    with pytest.raises(BuildError) as error:
        segment(*words, "--from", folder)
    assert message in str(error.value)
    assert written(here) == before


def test_what_was_built_is_found_by_the_name_of_its_manifest(
    folder: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAM3_MANIFEST", "manifests/sam2.1.yaml")
    shutil.copytree(folder, here / "artifacts" / "sam2.1")
    (here / "deeper").mkdir()
    monkeypatch.chdir(here / "deeper")
    assert segment(SCENES / "scene1.png", "--text", "star")[0].endswith(str(Path("artifacts", "sam2.1")))
    for given in (None, Path("sam2.1"), here / "artifacts" / "sam2.1"):
        assert built(given, "manifests/sam2.1.yaml", Path.cwd()) == here / "artifacts" / "sam2.1"
    with pytest.raises(BuildError, match=r"there is no folder vit_h and no artifacts/vit_h in .*doit manifest=vit_h"):
        segment(SCENES / "scene1.png", "--text", "star", "--model", "vit_h")

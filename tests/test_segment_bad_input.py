"""Bad input to `sam3-build segment`: handled, or one clear error, exit code 1 and nothing written."""

from __future__ import annotations

import json
import shutil
import struct
import sys
import zlib
from pathlib import Path

import miniature
import numpy as np
import pytest
import runnable
from PIL import Image
from typer.testing import CliRunner

from sam3_build import registry
from sam3_build.__main__ import app, main

SCENE = miniature.SCENES / "scene1.png"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runnable.write(tmp_path_factory.mktemp("built") / "published", verdict=runnable.PASSED)


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder, to change."""
    return Path(shutil.copytree(folder, tmp_path / "own"))


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the program in an empty folder; return its one line on stderr. Nothing may be written."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*words: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["sam3-build", "segment", *map(str, words)])
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 1
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        return capsys.readouterr().err

    return run


# ------------------------------------------------------------------ pictures


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int) -> bytes:
    """The head of a picture of this size, without pixels."""
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def saved(picture: Image.Image, kind: str, share: float = 1) -> bytes:
    from io import BytesIO

    out = BytesIO()
    picture.save(out, kind)
    return out.getvalue()[: int(len(out.getvalue()) * share)]


def scene() -> Image.Image:
    return Image.open(SCENE).convert("RGB")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("text.png", b"hello", "text.png cannot be read as a picture: cannot identify image file 'text.png'"),
        ("empty.png", b"", "empty.png cannot be read as a picture"),
        ("cut.png", saved(scene(), "PNG", 0.5), "cut.png cannot be read as a picture: image file is truncated"),
        ("cut.jpg", saved(scene(), "JPEG", 0.5), "cut.jpg cannot be read as a picture: image file is truncated"),
        ("narrow.png", png(0, 5), "narrow.png cannot be read as a picture"),
        ("huge.png", png(60000, 60000), "exceeds limit of 178956970 pixels"),
        ("real.tif", saved(Image.new("F", (9, 9), 0.5), "TIFF"), "nothing says which of them is white"),
        ("long.tif", saved(Image.new("I", (9, 9), 70000), "TIFF"), "nothing says which of them is white"),
    ],
)
def test_a_file_that_is_no_whole_picture_is_named(
    folder: Path, refused, tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    line = refused(tmp_path / name, "--text", "star", "--from", folder)
    assert message in line and line.count("\n") == 1


def test_a_file_that_cannot_be_opened_is_named(
    folder: Path, refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(SCENE, tmp_path / "locked.png")
    opened = Image.open

    def denied(path: object, *more: object) -> object:
        if Path(str(path)).name == "locked.png":  # who runs tests as root may read all files
            raise PermissionError(13, "Permission denied")
        return opened(path, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Image, "open", denied)
    line = refused(tmp_path / "locked.png", "--text", "star", "--from", folder)
    assert line == f"{tmp_path / 'locked.png'} cannot be read: Permission denied\n"


def test_pictures_of_every_usual_kind_are_segmented_as_viewers_show_them(folder: Path, tmp_path: Path) -> None:
    """All but the 16-bit grey one, whose colour is lost, give the miniature's one star."""
    rgb, turned = scene(), Image.Exif()
    turned[0x0112] = 6  # to be turned clockwise
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rgb.convert("CMYK").save(pictures / "cmyk.jpg", quality=95)
    rgb.convert("CMYK").save(pictures / "cmyk_raw.tif")
    rgb.convert("RGBA").save(pictures / "alpha.png")
    rgb.quantize(256).save(pictures / "palette.png")
    rgb.convert("RGBA").quantize(200).save(pictures / "palette_alpha.png", transparency=0)
    rgb.rotate(90, expand=True).crop((0, 0, 168, 160)).save(pictures / "rotated.png", exif=turned)
    Image.fromarray(np.asarray(rgb.convert("L"), np.uint16) * 257).save(pictures / "sixteen.png")
    done = CliRunner().invoke(
        app,
        ["segment", str(pictures), "--text", "star", "--from", str(folder), "--out", str(tmp_path / "out")],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.output
    assert done.output.count(": 1 star; ") >= 6
    sizes = {path.stem: Image.open(path).size for path in (tmp_path / "out").iterdir()}
    assert sizes.pop("rotated") == (160, 168)
    assert set(sizes.values()) == {(168, 168)} and len(sizes) == 6


# ------------------------------------------------------------------ prompts


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--box", "500,500,510,510"], "boxes[0]: the box 500,500,10,10 lies outside the picture, which is 168 x 168"),
        (["--boxes", "pos:1,1,9,9;neg:-20,0,10,10"], "boxes[1]: the box -20,0,10,10 lies outside the picture"),
        (["--text", ""], "text[0] is empty: say what to look for"),
        (["--text", "star", "--text", " \t"], "text[1] is empty"),
        (["--text", "red star " * 100], "is 202 tokens long, those at its start and end counted"),
        (["--text", "\U0001f408"], "the tokenizer has no token for some word of '\U0001f408'"),
        (["--text", "star", "--tokenizer", "none.json"], "none.json is not a tokenizer file"),
        (["--text", "star", "--threshold", "nan"], "threshold is nan; a score is from 0 to 1"),
        (["--text", "star", "--max", "0"], "max_found is 0"),
    ],
)
def test_a_prompt_that_is_wrong_is_named(folder: Path, refused, words: list[str], message: str) -> None:
    line = refused(SCENE, *words, "--from", folder)
    assert message in line and line.count("\n") == 1


# ------------------------------------------------------------------ what was built


def change(folder: Path, key: str, values: list[dict[str, object]]) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), key: values}))


def files_of(folder: Path) -> list[dict[str, object]]:
    return list(json.loads((folder / "model.json").read_bytes())["files"])


def test_an_unknown_target_is_refused_with_the_nearest(folder: Path, refused) -> None:
    line = refused(SCENE, "--text", "star", "--from", folder, "--target", "onnxruntim")
    assert line == "there is no target 'onnxruntim'; did you mean 'onnxruntime'?\n"


def test_a_file_that_is_not_the_one_listed_is_refused(own: Path, refused) -> None:
    file = own / "decoder" / "decoder.fp32.onnx"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes() + b"\0")
    line = refused(SCENE, "--text", "star", "--from", own)
    assert f"{file} has the sha256 " in line and "it is not the file that was described" in line
    file.unlink()
    assert f"{own} lacks decoder/decoder.fp32.onnx, which its model.json lists" in refused(
        SCENE, "--text", "star", "--from", own
    )


def test_a_component_that_is_missing_is_named(own: Path, refused) -> None:
    change(own, "files", [file for file in files_of(own) if file["component"] != "text_encoder"])
    line = refused(SCENE, "--text", "star", "--from", own)
    assert "onnxruntime fp32: the folder lacks text_encoder" in line


def test_a_blob_for_another_cpu_names_the_first_field_that_differs(own: Path, refused) -> None:
    pytest.importorskip("openvino")
    plugin, options = registry.backend("openvino"), {"device": "CPU"}
    assert plugin.probe
    bound = {**plugin.device_fields(options, plugin.probe()), "name": "Another CPU", "instruments": "none"}
    blob = {"backend": "openvino", "target": "fast", "options": options, "device": bound}
    change(own, "files", [file | blob for file in files_of(own)])
    line = refused(SCENE, "--text", "star", "--from", own, "--target", "fast", "--unverified")
    assert ".fp32.onnx was built for another device: its name is 'Another CPU', and this machine has '" in line
    assert line.count("its ") == 1


def test_an_engine_needs_a_gpu(own: Path, refused, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    engine = {"backend": "tensorrt_rtx", "target": "ada", "options": {"compute_capabilities": ["8.9"]}}
    change(own, "files", [file | engine for file in files_of(own)])
    assert "ada fp32: it needs a CUDA GPU; " in refused(SCENE, "--text", "star", "--from", own, "--target", "ada")


@pytest.mark.parametrize("place", ["--out", "--output"])
def test_what_cannot_be_written_is_one_message(folder: Path, refused, tmp_path: Path, place: str) -> None:
    (tmp_path / "taken.png").mkdir()
    (tmp_path / "file").write_text("")
    where = tmp_path / "file" / "deeper" if place == "--out" else tmp_path / "taken.png"
    line = refused(SCENE, "--text", "star", "--from", folder, place, where)
    assert f"{where}" in line and "cannot be written: " in line and line.count("\n") == 1

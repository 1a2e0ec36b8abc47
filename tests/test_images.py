"""Picture files become the pixels that viewers show, whatever they are stored as; anything else is refused by name."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from drawn import drawn_picture
from miniature import SCENES
from PIL import Image

from sam3_build.errors import BuildError
from sam3_build.pipeline import images

MEAN = STD = (0.5, 0.5, 0.5)
SCENE = SCENES / "scene1.png"
ORIENTATION = 0x0112  # EXIF tag; 6: turn a quarter clockwise to show


def test_a_picture_is_squashed_as_transformers_does_it():
    with Image.open(SCENE) as picture:
        found = images.network_input(picture, (168, 168), MEAN, STD)
        pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(pixels, size=(168, 168), mode="bilinear", antialias=True)[0]
    expected = (resized.float() / 255 - 0.5) / 0.5
    levels = np.abs(found - expected.numpy()) * 127.5
    assert found.shape == (3, 168, 168) and found.dtype == np.float32
    assert levels.max() <= 1.01, "more than one grey level apart"
    assert (levels > 0.01).mean() < 0.05


def test_values_run_from_minus_one_to_one():
    black_white = Image.fromarray(np.array([[0, 255]], np.uint8)).resize((8, 8), Image.Resampling.NEAREST)
    found = images.network_input(black_white, (8, 8), MEAN, STD)
    assert found.min() == -1 and found.max() == 1


def test_transparency_and_grey_pictures_become_rgb():
    assert images.network_input(Image.new("LA", (30, 20), (128, 10)), (14, 10), MEAN, STD).shape == (3, 14, 10)


@pytest.mark.parametrize("kind", ["png", "tif", "pgm", "jp2"])
def test_sixteen_bits_of_grey_become_eight(tmp_path, kind):
    eight = np.arange(256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(eight * 257).save(tmp_path / f"grey.{kind}")
    with Image.open(tmp_path / f"grey.{kind}") as stored:
        assert stored.mode in ("I", "I;16")
    found = np.asarray(images.read(tmp_path / f"grey.{kind}"))
    np.testing.assert_array_equal(found, np.repeat(eight.astype(np.uint8)[..., None], 3, axis=2))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0.0, 0.5]], np.float32), "run from 0 to 0.5"),
        (np.array([[-1, 9]], np.int32), "run from -1 to 9"),
        (np.array([[0, 65536]], np.int32), "run from 0 to 65536"),
        (np.array([[0, 255]], np.int32), "run from 0 to 255"),  # once drawn as 0 and 1 of 255
        (np.array([[0, 4095]], np.int32), "run from 0 to 4095"),
        (np.array([[0, 65535]], np.int32), "run from 0 to 65535"),
    ],
)
def test_grey_values_without_a_white_are_refused(tmp_path, values, message):
    Image.fromarray(values).save(tmp_path / "depth.tif")
    with pytest.raises(BuildError, match=f"depth.tif: its grey values {message}, .* save it with 8 or 16 bits"):
        images.read(tmp_path / "depth.tif")


def tag(number, value):
    """One entry of a TIFF's table: a tag with one 16-bit number."""
    return struct.pack("<HHIH", number, 3, 1, value)


BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339


@pytest.fixture
def edited(tmp_path):
    """Write 256 levels of 16-bit grey as TIFF, replace bytes of the file; return its path."""
    levels = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)

    def write(*replacements):
        Image.fromarray(levels).save(tmp_path / "grey.tif")
        data = (tmp_path / "grey.tif").read_bytes()
        for old, new in replacements:
            assert data.count(old) == 1 and len(old) == len(new)
            data = data.replace(old, new)
        (tmp_path / "grey.tif").write_bytes(data)
        return tmp_path / "grey.tif"

    return write, levels


def test_the_white_of_a_picture_of_twelve_bits_is_that_of_twelve_bits(edited):
    write, levels = edited
    values = [level * 4095 // 255 for level in range(256)]
    pairs = zip(values[::2], values[1::2], strict=True)
    packed = b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pairs)
    stored = levels.tobytes()
    file = write((tag(BITS, 16), tag(BITS, 12)), (stored, packed.ljust(len(stored), b"\0")))
    np.testing.assert_array_equal(np.asarray(images.read(file))[..., 1].ravel(), np.arange(256))


def test_a_picture_of_sixteen_bits_whose_white_is_zero_is_no_negative(edited):
    write, _ = edited
    file = write((tag(PHOTOMETRIC, 1), tag(PHOTOMETRIC, 0)))
    np.testing.assert_array_equal(np.asarray(images.read(file))[..., 1].ravel(), np.arange(256)[::-1])


def test_signed_grey_of_sixteen_bits_is_refused(tmp_path):
    Image.fromarray(np.array([[0, 32767]], np.uint16)).save(tmp_path / "signed.tif", tiffinfo={SAMPLE_FORMAT: 2})
    with Image.open(tmp_path / "signed.tif") as stored:
        assert stored.mode == "I"
    with pytest.raises(BuildError, match=r"signed.tif: its grey values run from 0 to 32767"):
        images.read(tmp_path / "signed.tif")


def test_a_turned_picture_is_read_as_viewers_show_it(tmp_path):
    """A phone stores its pixels as the sensor lies, and in EXIF how to turn them."""
    with Image.open(SCENE) as shown:
        upright = shown.convert("RGB").crop((0, 0, 120, 60))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "phone.png", exif=exif)
    found = images.read(tmp_path / "phone.png")
    assert found.size == (120, 60)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(upright))


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("cut.png", lambda data: data[: len(data) // 2], "image file is truncated"),
        ("text.png", lambda _: b"not a picture", "cannot identify image file 'text.png'"),
        ("empty.png", lambda _: b"", "cannot identify image file 'empty.png'"),
        ("broken.png", lambda data: data[:20] + bytes(60) + data[80:], ""),
    ],
)
def test_a_file_that_is_no_whole_picture_is_refused_in_pillows_words(tmp_path, name, damage, words):
    (tmp_path / name).write_bytes(damage(SCENE.read_bytes()))
    with pytest.raises(BuildError) as caught:
        images.read(tmp_path / name)
    message = str(caught.value)
    assert message.startswith(f"{name} cannot be read as a picture: {words}")
    assert "; give a whole picture file" in message and str(tmp_path) not in message


def test_a_picture_larger_than_pillow_takes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    Image.new("1", (1500, 1500)).save(tmp_path / "poster.png")
    with pytest.raises(BuildError, match=r"poster\.png .*\(2250000 pixels\) exceeds limit .* at most 2 million pixels"):
        images.read(tmp_path / "poster.png")


def test_a_picture_that_is_gone_is_told_apart_from_a_broken_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        images.read(tmp_path / "gone.png")


# ------------------------------------------------------------------ as Meta's code prepares pictures

GREY_MEAN, GREY_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize(("size", "fitted"), [((120, 250), (46, 96)), ((333, 200), (96, 58)), ((50, 50), (96, 96))])
def test_sam_1_pictures_are_fitted_normalised_and_then_padded(size, fitted):
    """`ResizeLongestSide` and `Sam.preprocess`, in PyTorch."""
    picture = drawn_picture(*size)
    pixels = torch.from_numpy(np.array(picture.resize(fitted[::-1], Image.Resampling.BILINEAR))).permute(2, 0, 1)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (GREY_MEAN, GREY_STD))
    expected = torch.nn.functional.pad((pixels - mean) / std, (0, 96 - fitted[1], 0, 96 - fitted[0]))
    found = images.padded_input(picture, 96, GREY_MEAN, GREY_STD)
    assert images.fitted_size(size, 96) == fitted
    assert found.dtype == np.float32 and (found == expected.numpy()).all(), "equal to the last bit"


def test_frames_of_clips_are_bicubic_and_equal_to_the_last_bit():
    """`load_video_frames` of SAM 2, in PyTorch."""
    picture = drawn_picture(120, 250)
    pixels = torch.from_numpy(np.array(picture.resize((64, 64))) / 255.0).permute(2, 0, 1)
    expected = torch.zeros(3, 64, 64, dtype=torch.float32)
    expected[:] = pixels
    mean, std = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (RGB_MEAN, RGB_STD))
    expected -= mean
    expected /= std
    found = images.frame_input(picture, (64, 64), RGB_MEAN, RGB_STD)
    assert found.dtype == np.float32 and (found == expected.numpy()).all()
    bilinear = images.network_input(picture, (64, 64), RGB_MEAN, RGB_STD)
    assert np.abs(bilinear - found).max() * 57 > 5, "the filter is not that of pictures: levels apart"


def test_sam_2_pictures_are_within_a_grey_level_of_an_interpolation_in_floats():
    """`SAM2Transforms` resizes tensors, antialiased, in floats."""
    picture = drawn_picture(120, 250)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
    resized = torch.nn.functional.interpolate(pixels, size=(64, 64), mode="bilinear", antialias=True)[0]
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (RGB_MEAN, RGB_STD))
    found = images.network_input(picture, (64, 64), RGB_MEAN, RGB_STD)
    levels = np.abs(found - ((resized - mean) / std).numpy()) * np.array(RGB_STD)[:, None, None] * 255
    assert levels.max() <= 1.01


def test_a_picture_of_a_mask_is_true_where_it_is_not_black(tmp_path):
    drawn = np.zeros((4, 5, 3), np.uint8)
    drawn[1, 2, 2] = 1
    Image.fromarray(drawn).save(tmp_path / "mask.png")
    found = images.read_mask(tmp_path / "mask.png")
    assert found.shape == (4, 5) and found.sum() == 1 and found[1, 2]

"""The sample pictures: their script draws the same pixels again, and what the manifest says of them is there."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from PIL import Image

from sam3_build.manifest.load import load

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "manifests" / "samples"
RED, BLUE, YELLOW = (205, 40, 40), (50, 80, 200), (230, 200, 50)


def test_redrawing_gives_the_same_pixels(tmp_path: Path) -> None:
    runpy.run_path(str(SAMPLES / "draw.py"))["main"](tmp_path)
    drawn = sorted(tmp_path.iterdir())
    assert [p.name for p in drawn] == sorted(p.name for p in SAMPLES.glob("*.png"))
    for path in drawn:
        with Image.open(path) as again, Image.open(SAMPLES / path.name) as shipped:
            assert (again.mode, again.size) == (shipped.mode, shipped.size) == ("RGB", shipped.size)
            assert again.tobytes() == shipped.tobytes(), path.name


def test_pictures_are_small() -> None:
    assert sum(p.stat().st_size for p in SAMPLES.glob("*.png")) < 32_000


@pytest.mark.parametrize(
    ("sample", "box", "colour"), [(1, 0, RED), (1, 1, BLUE), (2, 0, YELLOW)], ids=["circle", "square", "star"]
)
def test_each_box_of_the_manifest_lies_on_a_shape(sample: int, box: int, colour: tuple[int, int, int]) -> None:
    prompt = load("sam3_mini", ROOT).samples[sample]
    place = prompt.boxes[box]
    with Image.open(prompt.image) as image:
        inside = image.crop((int(place.x), int(place.y), int(place.x + place.w), int(place.y + place.h)))
        around = image.crop(
            (int(place.x) - 4, int(place.y) - 4, int(place.x + place.w) + 4, int(place.y + place.h) + 4)
        )
    pixels, wider = list(inside.get_flattened_data()), list(around.get_flattened_data())
    assert pixels.count(colour) > 0.25 * len(pixels)
    assert wider.count(colour) == pixels.count(colour), "the shape leaves its box"

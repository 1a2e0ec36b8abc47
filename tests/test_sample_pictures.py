"""The sample pictures: their script draws the same pixels again, and what the manifest says of them is there."""

from __future__ import annotations

import runpy
from pathlib import Path

from PIL import Image

from sam3_build.manifest.load import load
from sam3_build.pipeline.prompts import boxes_of

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "manifests" / "samples"
DRAWN = ("scene*.png", "clip/*", "masks/*")
BLUE = (50, 80, 200)


def test_redrawing_gives_the_same_pixels(tmp_path: Path) -> None:
    runpy.run_path(str(SAMPLES / "draw.py"))["main"](tmp_path)
    drawn = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.png"))
    own = [path for glob in DRAWN for path in SAMPLES.glob(glob)]
    assert drawn == sorted(path.relative_to(SAMPLES) for path in own)
    for path in drawn:
        with Image.open(tmp_path / path) as again, Image.open(SAMPLES / path) as shipped:
            mode = "L" if path.parent.name == "masks" else "RGB"
            assert (again.mode, again.size) == (shipped.mode, shipped.size) == (mode, shipped.size)
            assert again.tobytes() == shipped.tobytes(), path


def test_pictures_are_small() -> None:
    assert sum(p.stat().st_size for glob in DRAWN for p in SAMPLES.glob(glob)) < 48_000


def test_the_box_of_the_manifest_lies_on_the_blue_circle() -> None:
    (prompt,) = (sample for sample in load("sam3_mini", ROOT).samples if sample.pictures[0].name == "scene2.png")
    (place,) = boxes_of(prompt.prompts)
    with Image.open(prompt.pictures[0]) as image:
        inside = image.crop((int(place.x), int(place.y), int(place.x + place.w), int(place.y + place.h)))
        around = image.crop(
            (int(place.x) - 4, int(place.y) - 4, int(place.x + place.w) + 4, int(place.y + place.h) + 4)
        )
    pixels, wider = list(inside.get_flattened_data()), list(around.get_flattened_data())
    assert pixels.count(BLUE) > 0.7 * len(pixels)
    assert wider.count(BLUE) == pixels.count(BLUE), "the shape leaves its box"

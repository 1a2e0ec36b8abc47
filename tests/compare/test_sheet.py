"""The sheet: how many samples it shows, which ones, and what is written on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sam3_build.drawing.sheet import BLOCK, LARGE, MARGIN, MOST, WIDTH, Entry, Sheet, shortened, wrapped

GREEN = (30, 140, 60)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is written on pictures from now on."""
    texts: list[str] = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda self, at, words, *style: texts.append(words))
    return texts


def entry(name: str, *differences: str, height: int = WIDTH) -> Entry:
    panel = np.full((height, WIDTH, 3), GREEN, np.uint8)
    return Entry(name, "2 found, 2 by PyTorch", differences, (panel, panel, panel))


def sheet(*entries: Entry) -> Sheet:
    made = Sheet("PyTorch fp32 against something", "something")
    for one in entries:
        made.add(one)
    return made


def panels_of(file: Path) -> tuple[tuple[int, int], int]:
    """Return the size of the picture, and how many panels' worth of pixels are on it."""
    with Image.open(file) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
        return image.size, int((np.abs(pixels - GREEN).max(2) < 4).sum()) // WIDTH**2


@pytest.mark.parametrize(("samples", "columns"), [(1, 1), (2, 1), (3, 2), (5, 2), (MOST, 2)])
def test_every_sample_has_three_panels_in_one_column_or_two(tmp_path: Path, samples: int, columns: int) -> None:
    sheet(*(entry(str(i)) for i in range(samples))).write(tmp_path / "sheet.png")
    size, panels = panels_of(tmp_path / "sheet.png")
    assert (size[0], panels) == (columns * BLOCK + (columns + 1) * MARGIN, 3 * samples)


def test_samples_that_are_too_many_are_counted_and_those_that_differ_stay(tmp_path: Path, written: list[str]) -> None:
    made = sheet(*(entry(f"s{i}", *(["1 lost"] if i in (1, MOST + 2) else [])) for i in range(MOST + 4)))
    assert [one.prompt for one in made.entries] == [*(f"s{i}" for i in range(MOST - 1)), f"s{MOST + 2}"]
    made.write(tmp_path / "sheet.png")
    assert written.count("1 lost") == 2
    assert "and 4 more samples: none of them differs in what is found" in written
    assert panels_of(tmp_path / "sheet.png")[1] == 3 * MOST


def test_where_all_differ_the_rest_is_said_to_differ_too(tmp_path: Path, written: list[str]) -> None:
    sheet(*(entry(f"s{i}", "1 lost") for i in range(MOST + 1))).write(tmp_path / "sheet.png")
    assert "and 1 more sample: 1 of them differs in what is found" in written


def test_a_sheet_that_shows_all_says_nothing_of_more(tmp_path: Path, written: list[str]) -> None:
    sheet(entry("a"), entry("b", height=40)).write(tmp_path / "sheet.png")
    assert not any("more sample" in text for text in written)
    assert [text for text in written if text in ("a", "b", "picture", "PyTorch", "something")] == [
        "a", "picture", "PyTorch", "something", "b",
    ]  # fmt: skip


def test_no_sample_at_all_is_a_sheet_without_panels(tmp_path: Path) -> None:
    sheet().write(tmp_path / "sheet.png")
    assert panels_of(tmp_path / "sheet.png")[1] == 0


def test_words_that_do_not_fit_end_in_dots_and_lines_are_wrapped() -> None:
    assert shortened("short", LARGE, 200) == "short"
    long = shortened("a word " * 40, LARGE, 200)
    assert long.endswith(" ...") and long.startswith("a word a word")
    lines = wrapped("a word " * 12, LARGE, 200)
    assert len(lines) > 2 and " ".join(lines).split() == ["a", "word"] * 12
    assert wrapped("", LARGE, 200) == []

"""Takes the panels and captions of samples, draws one PNG on which a person judges the results.

Keeps only small panels, and those of MOST samples: which differ comes before which do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sam3_build.drawing.palette import BACKGROUND, DIFFERENCE, INK, SOFT, Colour, in_few_colours

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

    from sam3_build.drawing.overlay import Panels

    Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

# The file, in the output of the stage.
SHEET = "overlay.png"
# So many samples are shown, in two columns when they are more than SINGLE.
MOST, SINGLE = 12, 2
# Pixels. A panel is as wide as the miniature's pictures are.
WIDTH, GAP, MARGIN = 168, 6, 20
BLOCK = 3 * WIDTH + 2 * GAP
# Heights of letters, and of lines in letters.
TITLE, LARGE, SMALL, LEADING = 20, 16, 13, 1.35
PROMPTS = "Boxes and points of a prompt: solid green is what is meant, dashed or ringed red what is not."
LEGEND = f"{PROMPTS} Red areas: where the two differ. Thick red box: found by one of the two alone."


@dataclass(frozen=True)
class Entry:
    """One sample: the prompt, what was found, what differs, and its panels, WIDTH pixels wide or less."""

    prompt: str
    found: str
    differences: tuple[str, ...]
    panels: Panels


@dataclass
class Sheet:
    """Collects samples. title: what is compared with what; head: the target, in as many letters as a panel holds.

    legend: what the marks mean; what: what an entry is, such as a sample or a frame
    """

    title: str
    head: str
    legend: str = LEGEND
    what: str = "sample"
    entries: list[Entry] = field(default_factory=list)
    left_out: int = 0
    left_out_differing: int = 0

    def add(self, entry: Entry) -> None:
        """Take in the next sample; where they become too many, leave out the last one that does not differ."""
        self.entries.append(entry)
        if len(self.entries) > MOST:
            equal = [i for i, kept in enumerate(self.entries) if not kept.differences]
            out = self.entries.pop(equal[-1] if equal else -1)
            self.left_out += 1
            self.left_out_differing += bool(out.differences)

    def write(self, path: Path) -> None:
        """Write the PNG."""
        from PIL import Image, ImageDraw

        columns = 1 if len(self.entries) <= SINGLE else 2
        width = columns * BLOCK + (columns + 1) * MARGIN
        rows = [self.entries[i : i + columns] for i in range(0, len(self.entries), columns)]
        above = [(line, TITLE, INK) for line in wrapped(self.title, TITLE, width - 2 * MARGIN)]
        above += [(line, SMALL, SOFT) for line in wrapped(self.legend, SMALL, width - 2 * MARGIN)]
        below = [(line, SMALL, INK) for line in wrapped(self._more(), SMALL, width - 2 * MARGIN)]
        heights = [_caption(i) + max(len(entry.panels[0]) for entry in row) + MARGIN for i, row in enumerate(rows)]
        texts = sum(_line(size) for _, size, _ in (*above, *below))
        image = Image.new("RGB", (width, MARGIN + texts + MARGIN + sum(heights) + GAP), BACKGROUND)
        draw = ImageDraw.Draw(image)
        y = _lines(draw, MARGIN, above) + MARGIN
        for i, row in enumerate(rows):
            for column, entry in enumerate(row):
                x = MARGIN + column * (BLOCK + MARGIN)
                _words(draw, entry, x, y)
                for j, (head, panel) in enumerate(zip(("picture", "PyTorch", self.head), entry.panels, strict=True)):
                    left = x + j * (WIDTH + GAP)
                    if i == 0:
                        draw.text((left, y + _caption(1)), shortened(head, SMALL, WIDTH), SOFT, _font(SMALL))
                    image.paste(Image.fromarray(panel), (left, y + _caption(i)))
            y += heights[i]
        _lines(draw, y, below)
        in_few_colours(image).save(path, optimize=True)

    def _more(self) -> str:
        if not self.left_out:
            return ""
        some = self.left_out_differing
        differ = f"{some or 'none'} of them differ{'' if some > 1 else 's'}"
        return f"and {self.left_out} more {self.what}{'' if self.left_out == 1 else 's'}: {differ} in what is found"


def _caption(row: int) -> int:
    """Return the height of what stands above the panels: two lines, and in the first row what each panel is."""
    return _line(LARGE) + _line(SMALL) + GAP + (_line(SMALL) if row == 0 else 0)


def _words(draw: ImageDraw.ImageDraw, entry: Entry, x: int, y: int) -> None:
    """Write what was asked and, below, what was found: differences first, and red."""
    draw.text((x, y), shortened(entry.prompt, LARGE, BLOCK), INK, _font(LARGE))
    caption = shortened("; ".join(entry.differences), SMALL, BLOCK)
    draw.text((x, y + _line(LARGE)), caption, DIFFERENCE, _font(SMALL))
    taken = _font(SMALL).getlength(f"{caption}   ") if caption else 0
    draw.text((x + taken, y + _line(LARGE)), shortened(entry.found, SMALL, BLOCK - taken), SOFT, _font(SMALL))


def _lines(draw: ImageDraw.ImageDraw, y: int, lines: Sequence[tuple[str, int, Colour]]) -> int:
    for text, size, colour in lines:
        draw.text((MARGIN, y), text, colour, _font(size))
        y += _line(size)
    return y


# ------------------------------------------------------------------ letters


def _font(size: int) -> Font:
    """Return Pillow's own font: nothing is shipped, and nothing of the machine is used."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _line(size: int) -> int:
    return round(size * LEADING)


def shortened(text: str, size: int, width: float) -> str:
    """Return as much of a line as `width` pixels hold, with dots where something is missing."""
    font = _font(size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text} ...") > width:
        text = text[:-1]
    return f"{text} ..."


def wrapped(text: str, size: int, width: float) -> list[str]:
    """Return the lines that a text takes, none wider than `width` pixels unless one word is."""
    font, lines = _font(size), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [line for line in lines if line]

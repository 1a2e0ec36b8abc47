"""Text for terminals: lines of at most WIDTH characters, and durations as people read them."""

from __future__ import annotations

import textwrap

WIDTH = 100


def wrapped(text: str, first: str = "", then: str = "", *, cut_words: bool = False) -> list[str]:
    """Return `text` in lines of at most WIDTH characters, the first indented by `first`, the others by `then`.

    cut_words: whether a word that is longer than a line is cut; else it stands out, as a path that people copy must
    """
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=then,
        break_on_hyphens=False,
        break_long_words=cut_words,
    )


def duration(seconds: float) -> str:
    """Return a duration as people read it: `12.3 s`, `2 min 5 s`, `1 h 35 min`."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 90 else f"{minutes} min {rest} s"

"""Takes scores of candidates from two sides, returns where another candidate is taken for a difference of rounding.

The candidate with the largest score is taken, by a network or by what reads its outputs. Where two scores are nearly
equal, rounding decides between them: what is taken differs then, and neither is wrong. How far the scores themselves
are apart is judged with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

# Two candidates tie when the reference's scores of them are no further apart than this: half of what the score of a
# mask may change by in a reduced precision.
TIE = 0.01


def taken(expected: Array, actual: Array) -> NDArray[np.intp]:
    """Return [rows], the candidate with the largest score in `actual`.

    Of equal ones, which low types round scores to, any may have been taken: the one with the smallest score in
    `expected` is returned, and the expected one only where it is alone.

    expected, actual: scores [rows, candidates]
    """
    import numpy as np

    own = expected.argmax(axis=1)
    others = actual == actual.max(axis=1, keepdims=True)
    np.put_along_axis(others, own[:, None], values=False, axis=1)
    found: NDArray[np.intp] = np.where(others.any(axis=1), np.where(others, expected, np.inf).argmin(axis=1), own)
    return found


def ties(scores: Array, own: int, other: int) -> bool:
    """Say whether another candidate is taken, which ties with that of the reference. scores: its own, [candidates]."""
    return own != other and abs(float(scores[own]) - float(scores[other])) <= TIE


def worded(scores: Array, own: int, other: int) -> str:
    """Return in words which candidate is taken, by the same arguments."""
    shown = ", ".join(f"{score:.4f}" for score in scores.tolist())
    return f"takes mask {other} where mask {own} is expected (scores {shown})"


def near_ties(expected: Array, actual: Array) -> dict[int, str]:
    """Return row -> what is taken there, in words, where it ties with the expected candidate.

    expected, actual: scores [rows, candidates]; none where their shapes differ, which fails elsewhere
    """
    if actual.shape != expected.shape:
        return {}
    both = enumerate(zip(expected.argmax(axis=1).tolist(), taken(expected, actual).tolist(), strict=True))
    return {row: worded(expected[row], own, other) for row, (own, other) in both if ties(expected[row], own, other)}

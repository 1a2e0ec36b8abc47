"""Takes rows of a batch that were fed again in another order, returns the largest difference from before.

An engine can be right in row 0 of a batch and wrong in row 1, or read the row beside its own. Rows that are fed again,
in another order and twice, must give what they gave before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

# The rows of a case that are fed once more, together: another order, and one of them twice.
PERMUTED_ROWS = (1, 0, 0)


def permuted_rows(recorded: int, most: int) -> tuple[int, ...]:
    """Return which rows of a case that has `recorded` of them are fed again, at most `most` and no more than it has.

    The one row of a case is fed twice. Fewer than two rows show nothing: then there are none.
    """
    if recorded < 2:
        return (0, 0) if most >= 2 else ()
    return PERMUTED_ROWS[: min(recorded, most)] if most >= 2 else ()


@dataclass
class BatchInvariance:
    """One output of the rows fed again: `largest` is None until measured, with the `problem` if it could not be."""

    largest: float | None = None
    worst: str | None = None
    problem: str | None = None
    measured: bool = False

    def take(self, case: str, feed: Sequence[int], found: Array, before: Array, reference: Array) -> None:
        """Compare rows `found` with rows feed[i] of `before`: the largest |difference|, or how many elements differ.

        `before` and `reference` hold what the case itself gave and should give. Rows that came out all alike where the
        reference's differ were not looked at by the network: they are off by what they lack.
        """
        import numpy as np

        self.measured = True
        rows = f"the rows {list(feed)} of case {case!r}, fed together,"
        wanted = (len(feed), *before.shape[1:])
        if found.shape != wanted or found.dtype != before.dtype or before.shape != reference.shape:
            self.problem = f"{rows} are {found.dtype.name}{list(found.shape)}, and in the case {list(before.shape)}"
            return
        exact = not found.dtype.name.startswith(("float", "bfloat"))
        self.largest = 0.0
        for position, expected, of in _pairs(feed, found, before, reference):
            row = found[position]
            if not exact and not (np.isfinite(row) & np.isfinite(expected)).all():
                self.largest, self.problem = None, f"{rows} have NaN or Inf in row {position}, or had before"
                return
            difference = row != expected if exact else np.abs(row.astype(np.float64) - expected.astype(np.float64))
            size = float(difference.sum() if exact else difference.max(initial=0.0))
            if size > self.largest:
                at = tuple(int(i) for i in np.unravel_index(int(difference.argmax()), difference.shape))
                self.largest = size
                shown = f"{_shown(row[at])} in row {position} at {list(at)} where {_shown(expected[at])} {of}"
                self.worst = f"{rows} have {shown}"


def _pairs(feed: Sequence[int], found: Array, before: Array, reference: Array) -> Iterator[tuple[int, Array, str]]:
    """Yield each row's position, the row expected there, and in words where that comes from."""
    import numpy as np

    for position, row in enumerate(feed):
        yield position, before[row], f"came in row {row} of the case"
    alike = all(np.array_equal(found[0], row) for row in found)
    if alike and not all(np.array_equal(reference[feed[0]], reference[row]) for row in feed):
        for position, row in enumerate(feed):
            yield position, reference[row], f"is expected: all rows are alike, and row {row} of the reference is not"


def _shown(value: np.generic) -> str:
    found = value.item()
    return f"{found:.6g}" if isinstance(found, float) else repr(found)

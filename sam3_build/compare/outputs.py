"""Outputs of two sides: one row of them, whether they can be compared at all, and how a list of places is worded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sam3_build.spec import Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

# So many things are named when a gate fails.
NAMED = 3


@dataclass(frozen=True)
class PictureRow:
    """Where in the run a picture stands: the sample of the manifest, and the case and row that it was part of."""

    case: str
    row: int
    sample: int

    def __str__(self) -> str:
        """Return how a message names it."""
        name = f"sample{self.sample}"
        return name if self.case == name else f"{name} (case {self.case!r}, row {self.row})"

    def document(self) -> dict[str, Json]:
        """Return what details have of it."""
        return {"case": self.case, "row": self.row, "sample": self.sample}


def row_of(outputs: Mapping[str, Array], row: int) -> dict[str, Array]:
    """Return one row of a batch; an output without that row is as it is, and will be found to be of another shape."""
    return {name: array[row] if array.ndim and row < len(array) else array for name, array in outputs.items()}


@dataclass
class SoundOutputs:
    """Counts outputs that cannot be compared: the metrics `nonfinite` and `incomparable`.

    nonfinite: how many values are NaN or Inf, and `where`
    problems:  which outputs are missing, or of another shape or dtype
    """

    nonfinite: int = 0
    where: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def problem(self, place: str, expected: Mapping[str, Array], actual: Mapping[str, Array]) -> str | None:
        """Return why the outputs at `place` cannot be compared, and remember it; None when they can."""
        import numpy as np

        for name, reference in expected.items():
            found = actual.get(name)
            if found is None or found.shape != reference.shape or found.dtype != reference.dtype:
                has = "is missing" if found is None else f"is {found.dtype.name}{list(found.shape)}"
                wanted = f"{reference.dtype.name}{list(reference.shape)}"
                self.problems.append(f"{place}: {name} {has} where {wanted} is expected")
                return self.problems[-1]
        wrong = {name: ~np.isfinite(array) for name, array in actual.items() if array.dtype.kind == "f"}
        counts = {name: int(mask.sum()) for name, mask in wrong.items() if mask.any()}
        for name, count in counts.items():
            index = [int(i) for i in np.argwhere(wrong[name])[0]]
            value = actual[name][tuple(index)].item()
            self.where.append(f"{place} has {count} in {name}, the first one ({value}) at {index}")
        self.nonfinite += sum(counts.values())
        return self.where[-1] if counts else None


def listed(texts: Iterable[str]) -> str:
    """Return the first NAMED of `texts` as one, and how many more there are."""
    every = list(texts)
    more = f"; and {len(every) - NAMED} more" if len(every) > NAMED else ""
    return "; ".join(every[:NAMED]) + more

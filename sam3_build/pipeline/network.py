"""A network that runs cases: takes an open session, returns what runs any number of rows on it.

What was built for shape profiles gets a case's rows in groups that a profile takes; which profile that is, the session
finds by the shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError
from sam3_build.pipeline import profiles
from sam3_build.pipeline.arrays import unsuitable
from sam3_build.plugins import Session
from sam3_build.spec import Profile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Arrays = Mapping[str, "NDArray[np.generic]"]


@dataclass(frozen=True)
class Network:
    """What runs a component: an open session, and for an engine the profiles it was built for.

    dims:    of each input, its dims as the ONNX has them
    row_dim: the dim whose rows are independent, where inputs and outputs have one in common
    row_axes: of inputs and outputs that have rows, the axis along which they lie
    """

    session: Session
    dims: Mapping[str, Sequence[int | str]]
    profiles: Sequence[Profile] = ()
    row_dim: str | None = None
    row_axes: Mapping[str, int] = field(default_factory=dict)

    @property
    def fixed_input(self) -> str | None:
        """An input whose dim of rows has one size, so that none can be added; None when there is none."""
        rows = ((name, dims, self.row_axes[name]) for name, dims in self.dims.items() if name in self.row_axes)
        return next((name for name, dims, axis in rows if axis >= len(dims) or isinstance(dims[axis], int)), None)

    def count(self, feed: Arrays) -> int:
        """Return how many rows a feed has; 1 of a component without."""
        return max(
            (array.shape[self.row_axes[name]] for name, array in feed.items() if name in self.row_axes), default=1
        )

    def picked(self, arrays: Arrays, rows: Sequence[int]) -> Arrays:
        """Return some rows of inputs or outputs, in this order; what has no rows is given whole to each."""
        return {n: a.take(rows, self.row_axes[n]) if n in self.row_axes else a for n, a in arrays.items()}

    def misfit(self, feed: Arrays) -> str | None:
        """Say why no shape profile takes a feed, however its rows are grouped; None when one does."""
        numbered = {str(number): profile for number, profile in enumerate(self.profiles, start=1)}
        return profiles.misfit(numbered, self._sizes(feed), self.row_dim)

    def fitting_rows(self, feed: Arrays, rows: tuple[int, ...]) -> tuple[int, ...]:
        """Return rows of a feed, at least two of them, as they can be fed at once; empty when no two can."""
        if not self.profiles:
            return rows
        return profiles.fitting_rows(self.profiles, self._sizes(feed), self.row_dim, rows)

    def split(self, feed: Arrays, case: str) -> tuple[tuple[int, ...], ...]:
        """Return the rows of a feed in groups that can be fed; BuildError when it does not suit."""
        if why := unsuitable(self.session.inputs, feed):
            raise BuildError(f"case {case!r}: {why}")
        found = profiles.groups(self.profiles, self._sizes(feed), self.row_dim)
        if found is None:
            raise BuildError(f"case {case!r} fits no shape profile: {self.misfit(feed)}")
        return found

    def run(self, feed: Arrays, case: str) -> Arrays:
        """Return the outputs by name. BuildError when the feed does not suit."""
        import numpy as np

        groups = self.split(feed, case)
        if len(groups) == 1 and len(groups[0]) == (self.count(feed) if self.row_dim else 1):
            return self.session.run(feed)
        parts: dict[str, list[NDArray[np.generic]]] = {}
        for rows in groups:
            outputs = self.session.run(self.picked(feed, rows))
            for name, array in self.picked(outputs, range(len(set(rows)))).items():
                parts.setdefault(name, []).append(array)
        axes = self.row_axes
        return {n: np.concatenate(arrays, axes[n]) if n in axes else arrays[0] for n, arrays in parts.items()}

    def _sizes(self, feed: Arrays) -> dict[str, int]:
        return {
            dim: size
            for name, array in feed.items()
            for dim, size in zip(self.dims.get(name, ()), array.shape, strict=False)
            if isinstance(dim, str)
        }

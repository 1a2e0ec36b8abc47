"""Takes pairs of arrays, case by case, returns the statistics of one output over all cases. Knows no threshold.

Writing r for the reference and a for what is compared with it, over all elements of all cases:

    max_abs_over_std    max |a - r| / std(r)
    max_abs_over_range  max |a - r| / (max(r) - min(r))
    cosine              sum(a r) / (|a| |r|); 1 when both are zero, 0 when one is
    std_ratio           std(a) / std(r)
    nonfinite           how many elements of a and of r are NaN or Inf (the other metrics leave these elements out)
    mismatches          how many elements differ (bool and integer outputs, which have no other metric)
    incomparable        in how many cases shape or dtype differ (no other metric sees these cases)
    rows                the largest difference between rows fed again and what they gave before (batch_invariance.py),
                        over max(r) - min(r); for bool and integer outputs the number of elements that differ

Rows that are left out, because they mean nothing or are of another candidate that ties with the expected one, are
looked at for NaN and Inf alone. Where there is no other row, no metric is measured, and none could be: `not_run` says
so.

A reference that is constant but for the rounding of float32 (std(r) at most 1e-6 max |r|: one number, or one number
computed in batches of several sizes) has no scale of its own: std(r) and the range become max |r|, or 1 where that is
0, and std_ratio becomes 1 + std(a) / that scale, so that two constants have the ratio 1 and noise around one shows.
What cannot be measured, for want of one finite pair, is None.
Sums are taken in float64, a chunk at a time, variances merged pairwise (Chan, Golub, LeVeque 1983), so that large
tensors cost little memory and a large mean costs no digits.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sam3_build.compare.batch_invariance import BatchInvariance
from sam3_build.spec import Json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Spread, relative to the largest magnitude, up to which float32 values are one value and rounding: some 10 ulp.
CONSTANT = 1e-6
# Elements per step: 8 MiB as float64.
CHUNK = 1 << 20


@dataclass
class Moments:
    """Count, mean, sum of squared deviations and extremes of the finite values seen so far."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def add(self, values: NDArray[np.float64]) -> None:
        """Take in a flat array of finite values."""
        if not values.size:
            return
        mean = float(values.mean())
        squares = float(((values - mean) ** 2).sum())
        total = self.count + values.size
        delta = mean - self.mean
        self.squares += squares + delta * delta * self.count * values.size / total
        self.mean += delta * values.size / total
        self.count = total
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    @property
    def std(self) -> float:
        """Population standard deviation; exactly 0 when all values are one and the same."""
        return 0.0 if self.low >= self.high else math.sqrt(self.squares / self.count)

    @property
    def scale(self) -> float:
        """The largest magnitude, or 1 when all values are 0."""
        return max(abs(self.low), abs(self.high)) or 1.0


@dataclass
class OutputStatistics:
    """Accumulates one output over the cases; `dtype` is the reference's numpy dtype name."""

    dtype: str
    cases: int = 0
    elements: int = 0
    problems: list[str] = field(default_factory=list)
    nonfinite: int = 0
    nonfinite_reference: int = 0
    mismatches: int = 0
    max_abs: float = -1.0
    worst: dict[str, Json] | None = None
    actual: Moments = field(default_factory=Moments)
    reference: Moments = field(default_factory=Moments)
    products: tuple[float, float, float] = (0.0, 0.0, 0.0)
    left_out: int = 0
    tied: int = 0
    ties: dict[str, str] = field(default_factory=dict)
    batch_invariance: BatchInvariance = field(default_factory=BatchInvariance)

    @property
    def exact(self) -> bool:
        """Whether the output is compared by equality: everything that is not floating point."""
        return not self.dtype.startswith(("float", "bfloat"))

    def add(
        self,
        case: str,
        actual: NDArray[np.generic],
        reference: NDArray[np.generic],
        rows: NDArray[np.bool_] | None = None,
        ties: Collection[int] = (),
    ) -> bool:
        """Take in one case; return False (and remember the problem) when the two cannot be compared.

        rows: which rows, along the first axis, mean something; all of them where it is None
        ties: which are of another candidate that ties with the expected one
        """
        import numpy as np

        self.cases += 1
        if actual.shape != reference.shape or actual.dtype != reference.dtype or reference.dtype.name != self.dtype:
            self.problems.append(
                f"case {case!r} has {actual.dtype.name}{list(actual.shape)} "
                f"where {reference.dtype.name}{list(reference.shape)} is expected"
            )
            return False
        if ties:
            rows = np.ones(len(reference), np.bool_) if rows is None else rows.copy()
            rows[list(ties)] = False
            self.tied += len(ties)
        numbers = None if rows is None else rows.nonzero()[0]
        if rows is not None and numbers is not None:
            self._leave_out(actual[~rows], reference[~rows])
            actual, reference = actual[numbers], reference[numbers]
        self.elements += reference.size
        flat_actual, flat_reference = actual.reshape(-1), reference.reshape(-1)
        compare = self._compare_exact if self.exact else self._compare_floats
        for start in range(0, reference.size, CHUNK):
            worst = compare(flat_actual[start : start + CHUNK], flat_reference[start : start + CHUNK])
            if worst is not None:
                self._remember(case, actual, reference, start + worst, numbers)
        return True

    def _leave_out(self, actual: NDArray[np.generic], reference: NDArray[np.generic]) -> None:
        import numpy as np

        self.left_out += len(reference)
        if not self.exact:
            self.nonfinite += int((~np.isfinite(actual)).sum())
            self.nonfinite_reference += int((~np.isfinite(reference)).sum())

    def _compare_exact(self, actual: NDArray[np.generic], reference: NDArray[np.generic]) -> int | None:
        """Count mismatches; return the position of the first one ever seen."""
        differs = actual != reference
        found = int(differs.sum())
        first = self.mismatches == 0 and found > 0
        self.mismatches += found
        return int(differs.argmax()) if first else None

    def _compare_floats(self, actual: NDArray[np.generic], reference: NDArray[np.generic]) -> int | None:
        """Accumulate moments and products; return the position of a new largest difference."""
        import numpy as np

        a, r = actual.astype(np.float64), reference.astype(np.float64)
        finite_a, finite_r = np.isfinite(a), np.isfinite(r)
        self.nonfinite += a.size - int(finite_a.sum())
        self.nonfinite_reference += r.size - int(finite_r.sum())
        both = finite_a & finite_r
        if not both.all():
            a, r = np.where(both, a, 0.0), np.where(both, r, 0.0)
            self.actual.add(a[both])
            self.reference.add(r[both])
            if not both.any():
                return None
        else:
            self.actual.add(a)
            self.reference.add(r)
        ar, aa, rr = self.products
        self.products = (ar + float(a @ r), aa + float(a @ a), rr + float(r @ r))
        difference = np.abs(a - r)
        worst = int(np.where(both, difference, -1.0).argmax())
        if difference[worst] <= self.max_abs:
            return None
        self.max_abs = float(difference[worst])
        return worst

    def _remember(
        self,
        case: str,
        actual: NDArray[np.generic],
        reference: NDArray[np.generic],
        flat: int,
        rows: NDArray[np.intp] | None,
    ) -> None:
        import numpy as np

        index = tuple(int(i) for i in np.unravel_index(flat, reference.shape))
        self.worst = {
            "case": case,
            "index": list(index) if rows is None else [int(rows[index[0]]), *index[1:]],
            "actual": actual[index].item(),
            "reference": reference[index].item(),
        }

    def metrics(self) -> dict[str, float | None]:
        """Return the metrics of the module's docstring; None for what could not be measured."""
        found: dict[str, float | None] = {
            "nonfinite": self.nonfinite + self.nonfinite_reference,
            "incomparable": len(self.problems),
        }
        r = self.reference
        extent = r.high - r.low if r.count and not self.constant else r.scale if r.count else None
        if self.batch_invariance.measured:
            unit = 1 if self.exact else extent
            found["rows"] = (
                None if self.batch_invariance.largest is None or unit is None else self.batch_invariance.largest / unit
            )
        if self.exact:
            return {"mismatches": self.mismatches if self.elements else None, **found}
        if extent is None:
            return {"max_abs_over_std": None, "max_abs_over_range": None, "cosine": None, "std_ratio": None, **found}
        return {
            "max_abs_over_std": self.max_abs / (r.scale if self.constant else r.std),
            "max_abs_over_range": self.max_abs / extent,
            "cosine": self._cosine(),
            "std_ratio": 1 + self.actual.std / r.scale if self.constant else self.actual.std / r.std,
            **found,
        }

    @property
    def constant(self) -> bool:
        """Whether the reference is one value and its rounding."""
        return self.reference.std <= CONSTANT * self.reference.scale

    def _cosine(self) -> float:
        ar, aa, rr = self.products
        if aa == 0 or rr == 0:
            return 1.0 if aa == rr else 0.0
        return max(-1.0, min(1.0, ar / (math.sqrt(aa) * math.sqrt(rr))))

    def summary(self, not_run: Mapping[str, Json] | None = None, where: str = "") -> dict[str, Json]:
        """Return everything measured as JSON (no NaN, no Inf): the metrics, and the numbers they are made of.

        not_run: metric -> why there was nothing to measure it on
        where:   the logits by which rows were left out
        """
        metrics, unmeasurable = self.metrics(), dict(not_run or {})
        if self.left_out and not self.elements:
            why = f"{where} is positive in none of the {self.left_out} rows, so that they mean nothing"
            if self.tied:
                why = f"no row is compared: in {self.tied} of {self.left_out} another one is taken that nearly ties"
            unmeasurable |= {metric: why for metric, value in metrics.items() if value is None}
        facts: dict[str, Json] = {
            "dtype": self.dtype,
            "exact": self.exact,
            "cases": self.cases,
            "elements": self.elements,
            "metrics": metrics,
            "problems": self.problems,
            "worst": self.worst,
        }
        if self.left_out:
            facts["left_out"] = self.left_out
        if self.ties:
            facts |= {"ties": dict(self.ties)}
        if unmeasurable:
            facts["not_run"] = unmeasurable
        if self.batch_invariance.measured:
            facts["where"] = {"rows": self.batch_invariance.worst}
            facts["unmeasured"] = {"rows": self.batch_invariance.problem}
        if self.exact or not self.reference.count:
            return facts
        return facts | {
            "max_abs": self.max_abs,
            "nonfinite_actual": self.nonfinite,
            "nonfinite_reference": self.nonfinite_reference,
            "actual": _described(self.actual),
            "reference": _described(self.reference),
        }


def _described(moments: Moments) -> dict[str, Json]:
    return {"mean": moments.mean, "std": moments.std, "min": moments.low, "max": moments.high}

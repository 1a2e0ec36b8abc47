"""Takes what the stage `localize` measured, returns the error of each block, and the block that introduces it. Pure.

An error is told in units of its gate, so that it can be followed through tensors of any scale: above 1 it fails. Cosine
falls with the square of an error, so its share is taken by the root.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict, cast

from sam3_build.compare.judge import default_gates, holds
from sam3_build.spec import Gate, Json

# A block parts when its error is so many times that of the blocks before it, and above its gate.
JUMP = 3.0
# Errors below this are rounding: what grows from nothing to little is no jump.
FLOOR = 0.1
# A tensor whose FP32 values reach this is a mask of -3.4e38 (or -inf), which a smaller type cuts off to no effect.
MASK = 1e30

# What every tensor has, wherever it is taken from; gates on anything else (types, rows of a batch) say nothing here.
EVERYWHERE = frozenset(
    {"max_abs_over_std", "max_abs_over_range", "cosine", "std_ratio", "mismatches", "nonfinite", "incomparable"}
)

Metrics = Mapping[str, float | None]


class _Statistics(TypedDict):
    metrics: Metrics
    reference: Mapping[str, float]  # absent where no finite pair was compared
    nonfinite_reference: int


class _Tensor(TypedDict):
    node: str
    statistics: _Statistics | None


class _Block(TypedDict):
    name: str
    after: Sequence[int]
    tensors: Mapping[str, _Tensor]


@dataclass(frozen=True)
class Depth:
    """One block by the worst tensor that leaves it, which `node` writes.

    before: the worst error of the blocks that it reads from, 0 where it reads inputs alone
    error:  its own; both in units of the gate, infinite where NaN or Inf appear
    told:   the error in words
    """

    block: str
    node: str
    before: float
    error: float
    told: str
    max_abs_over_std: float | None
    cosine: float | None

    @property
    def growth(self) -> float:
        """How many times what comes in the error is, at least; 1 where all is lost already."""
        return 1.0 if math.isinf(self.before) else self.error / max(FLOOR, self.before)


def depths(measured: Mapping[str, Json]) -> tuple[Depth, ...]:
    """Return the blocks of `depth.json`, in order of depth; those of which no tensor was compared are left out."""
    gates = default_gates(str(measured["precision"]), "float32")
    errors: dict[int, float] = {}
    found: list[Depth] = []
    for number, block in enumerate(cast("Sequence[_Block]", measured["blocks"])):
        compared = [
            (times_gate(gates, tensor["statistics"]["metrics"]), tensor["node"], tensor["statistics"]["metrics"])
            for tensor in block["tensors"].values()
            if tensor["statistics"] and not _says_nothing(tensor["statistics"])
        ]
        if not compared:
            continue
        error, node, metrics = max(compared, key=lambda tensor: tensor[0])
        before = max((errors[other] for other in block["after"] if other in errors), default=0.0)
        std, cosine = metrics.get("max_abs_over_std"), metrics.get("cosine")
        found.append(Depth(block["name"], node, before, error, in_words(error, metrics), std, cosine))
        errors[number] = error
    return tuple(found)


def parting(found: Sequence[Depth]) -> Depth | None:
    """Return where a failing output's error comes from: the first block that jumps, else the one that adds most.

    The first one above its gate would not do: it may only be where an old error has grown up.
    """
    jumped = [depth for depth in found if depth.error > 1 and depth.growth >= JUMP]
    return jumped[0] if jumped else max(found, key=lambda depth: depth.growth, default=None)


def times_gate(gates: Sequence[Gate], metrics: Metrics) -> float:
    """Return the worst of a tensor's metrics in units of its gate: above 1 exactly when one of them fails.

    Gates on what is not measured EVERYWHERE are left out. What could not be measured is infinitely wrong.
    """
    return max((_times(gate, metrics.get(gate.metric)) for gate in gates if gate.metric in EVERYWHERE), default=0.0)


def in_words(error: float, metrics: Metrics) -> str:
    """Return an error as a table shows it: a number, or what is wrong where no number says it."""
    if math.isfinite(error):
        return f"{error:.3g}"
    kinds = {"nonfinite": "NaN or Inf", "incomparable": "another shape", "mismatches": "unequal"}
    return next((words for metric, words in kinds.items() if metrics.get(metric)), "not measured")


def _times(gate: Gate, value: float | None) -> float:
    if value is None or math.isnan(value):
        return math.inf
    if isinstance(gate.threshold, tuple):
        low, high = gate.threshold
        error, limit = abs(value - (low + high) / 2), (high - low) / 2
    elif gate.at_least:
        error, limit = math.sqrt(max(0.0, 1 - value)), math.sqrt(max(0.0, 1 - gate.threshold))
    else:
        error, limit = value, gate.threshold
    share = error / limit if limit else (math.inf if error else 0.0)
    # Rounding must not decide otherwise than the judge does.
    return min(share, 1.0) if holds(gate, value) else max(share, math.nextafter(1, 2))


def _says_nothing(statistics: _Statistics) -> bool:
    """Tell whether a tensor is empty, or a mask by its FP32 values; where no pair is finite, that is the other's."""
    reference = statistics.get("reference")
    if reference is None:
        return not statistics["metrics"]["nonfinite"] and not statistics["metrics"]["incomparable"]
    return bool(statistics["nonfinite_reference"]) or max(-reference["min"], reference["max"]) >= MASK

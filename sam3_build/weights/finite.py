"""Counts NaN and infinite elements in bytes of weights, and describes the tensors of an inventory that have any."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sam3_build.spec import Json

# The bits of a type's exponent, by safetensors' name: all set in NaN and infinity, and in nothing else.
EXPONENTS: Mapping[str, tuple[str, int]] = {"F32": ("<u4", 0x7F800000), "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80)}

# Of tensors: what overflowed in training has reached all of them.
MOST_LISTED = 8


@dataclass(frozen=True)
class Count:
    """How many elements are NaN, and how many infinite."""

    nan: int = 0
    inf: int = 0

    def __add__(self, other: Count) -> Count:
        """Return the numbers of both together."""
        return Count(self.nan + other.nan, self.inf + other.inf)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.nan or self.inf)

    def as_json(self) -> dict[str, Json]:
        """Return the numbers that are not zero."""
        return {name: n for name, n in (("nan", self.nan), ("inf", self.inf)) if n}


def count(dtype: str, elements: bytes | memoryview) -> Count:
    """Count in the bytes of whole elements, little endian; nothing in a type that has neither NaN nor infinity."""
    import numpy as np

    if dtype not in EXPONENTS:
        return Count()
    kind, exponent = EXPONENTS[dtype]
    bits = np.frombuffer(elements, kind)
    exponents = bits & bits.dtype.type(exponent)
    if not exponents.size or int(exponents.max()) != exponent:  # ten times faster than the digest of the same bytes
        return Count()
    special = bits[exponents == exponent]
    nan = int(np.count_nonzero(special & bits.dtype.type(exponent & -exponent) - bits.dtype.type(1)))
    return Count(nan, special.size - nan)


def describe(key: str, origin: str, shape: tuple[int, ...], special: Count) -> str:
    """Return a tensor's name, also as the file spells it, and what it holds: `x (of y): 3 NaN and 1 Inf of 4096`."""
    what = " and ".join(f"{n} {name}" for name, n in (("NaN", special.nan), ("Inf", special.inf)) if n)
    return f"{key}{'' if origin == key else f' (of {origin})'}: {what} of {math.prod(shape)}"


def in_inventory(listed: Mapping[str, Mapping[str, Json]], origins: Mapping[str, str]) -> list[str]:
    """Return a line for each tensor of a component's inventory that is not finite."""
    lines = []
    for key, line in listed.items():
        nan, inf, shape = line.get("nan", 0), line.get("inf", 0), line["shape"]
        assert isinstance(nan, int) and isinstance(inf, int) and isinstance(shape, list)
        if special := Count(nan, inf):
            sizes = tuple(n for n in shape if isinstance(n, int))
            lines.append(describe(key, origins.get(key, key), sizes, special))
    return lines


def shortened(lines: list[str]) -> list[str]:
    """Return the first of many lines, and how many more there are."""
    more = [f"and {len(lines) - MOST_LISTED} more"] if len(lines) > MOST_LISTED else []
    return [*lines[:MOST_LISTED], *more]


def refusal(wrong: list[str]) -> str:
    """Say why nothing is exported from a component, of whose tensors `wrong` are not finite."""
    what = f"{len(wrong)} tensors are" if len(wrong) > 1 else "a tensor is"
    return (
        f"{what} not finite, and nothing is exported from that; take a checkpoint from before training went wrong, or "
        "leave the component out:\n  " + "\n  ".join(shortened(wrong))
    )

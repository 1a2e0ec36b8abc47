"""Shape profiles: which sizes of open dims an engine takes, and in which groups of rows it takes a case."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

from sam3_build.spec import Profile, Range


def restricted(profiles: Iterable[Profile], dims: Container[str]) -> tuple[Profile, ...]:
    """Return profiles with the ranges of `dims` alone."""
    return tuple({dim: span for dim, span in profile.items() if dim in dims} for profile in profiles)


def first_fit(profiles: Sequence[Profile], sizes: Mapping[str, int]) -> int | None:
    """Return the position of the first profile that takes all `sizes` (dim -> size); None when none does.

    A dim without a range is not the profile's business.
    """
    return next((i for i, profile in enumerate(profiles) if not _outside(profile, sizes)), None)


def misfit(profiles: Mapping[str, Profile], sizes: Mapping[str, int], row_dim: str | None) -> str | None:
    """Say why no profile takes a case of these sizes, whatever its rows are grouped into; None when one does.

    profiles: by what to call them
    row_dim:  the dim whose rows can be fed in groups, if there is one
    """
    others = {dim: size for dim, size in sizes.items() if dim != row_dim}
    outside = {name: _outside(profile, others) for name, profile in profiles.items()}
    if not outside or not all(outside.values()):
        return None
    reasons = [
        f"{dim} is {sizes[dim]}, and shape profile {name} takes {_shown(profiles[name][dim])}"
        for name, (dim, *_) in outside.items()
    ]
    return "; ".join(reasons)


def groups(
    profiles: Sequence[Profile], sizes: Mapping[str, int], row_dim: str | None
) -> tuple[tuple[int, ...], ...] | None:
    """Return the rows of a case, in order, in groups that a profile takes; None when the other dims fit none.

    As many rows at once as a profile allows. Where fewer are left than it asks for, the last one is repeated: whoever
    runs the groups drops what it gives. Without profiles, or without a dim of rows, a case is one group.
    """
    count = sizes.get(row_dim, 1) if row_dim else 1
    if row_dim is None or not profiles:
        return (tuple(range(count)),) if not profiles or first_fit(profiles, sizes) is not None else None
    others = {dim: size for dim, size in sizes.items() if dim != row_dim}
    taken = [profile.get(row_dim, (1, count, count)) for profile in profiles if not _outside(profile, others)]
    if not taken:
        return None
    result: list[tuple[int, ...]] = []
    start = 0
    while start < count:
        left = count - start
        fitting = [min(high, left) for low, _, high in taken if low <= left]
        size = max(fitting) if fitting else min(low for low, _, _ in taken)
        result.append(tuple(min(start + i, count - 1) for i in range(size)))
        start += size
    return tuple(result)


def fitting_rows(
    profiles: Sequence[Profile], sizes: Mapping[str, int], row_dim: str | None, rows: tuple[int, ...]
) -> tuple[int, ...]:
    """Return `rows` as one group that a profile takes: cut to two or more of them, else filled up by the first row.

    Empty where no profile takes two rows together with the other dims.
    """
    if row_dim is None:
        return ()
    others = {dim: size for dim, size in sizes.items() if dim != row_dim}
    taken = [profile.get(row_dim, (1, len(rows), len(rows))) for profile in profiles if not _outside(profile, others)]
    smallest = sorted(low for low, _, _ in taken if low > len(rows))
    for count in (*range(len(rows), 1, -1), *smallest):
        if any(low <= count <= high for low, _, high in taken):
            return (*rows[:count], *(0,) * (count - len(rows)))
    return ()


def _outside(profile: Profile, sizes: Mapping[str, int]) -> list[str]:
    return [dim for dim, size in sizes.items() if dim in profile and not profile[dim][0] <= size <= profile[dim][2]]


def _shown(span: Range) -> str:
    low, _, high = span
    return str(low) if low == high else f"{low} to {high}"

"""Versions of installed distributions, read from their metadata: nothing is imported to learn them."""

from __future__ import annotations

from functools import cache


@cache
def version(distribution: str) -> str:
    """Return the installed version of `distribution`, or `"absent"`."""
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "absent"

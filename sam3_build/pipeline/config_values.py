"""Reads whole numbers out of a model config, given as JSON. No torch."""

from __future__ import annotations

from collections.abc import Mapping

from sam3_build.errors import BuildError
from sam3_build.spec import Json


def integer(config: Mapping[str, Json], *path: str, usual: int | None = None) -> int:
    """Return the number at `path`, at least 1; `usual` where the config leaves it out. BuildError names the key."""
    value: Json = config
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    if value is None and usual is not None:
        return usual
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BuildError(f"model config: {'.'.join(path)} should be an integer of at least 1, but is {value!r}")
    return value


def require(config: Mapping[str, Json], expected: int, *path: str) -> None:
    """Refuse a config that has another number at `path`; it may leave it out. BuildError names the key."""
    if (actual := integer(config, *path, usual=expected)) != expected:
        raise BuildError(f"model config: {'.'.join(path)} should be {expected} for the other sizes, but is {actual}")

"""Reads whole numbers out of a model config, given as JSON; finds the published one of a file without. No torch."""

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


def published(
    shapes: Mapping[str, tuple[int, ...]], embedding: str, layers: str, sizes: Mapping[str, tuple[int, int]]
) -> str:
    """Return which published size a file has the image encoder of. BuildError when it is none.

    shapes:    of its tensors, by our names
    embedding: the tensor whose first dim is the encoder's width; layers: what the names of layers begin with
    sizes:     name -> width and number of layers
    """
    (width, *_) = shapes.get(embedding, (0,))
    count = len({name.removeprefix(layers).partition(".")[0] for name in shapes if name.startswith(layers)})
    for name, size in sizes.items():
        if size == (width, count):
            return name
    known = ", ".join(f"{name} {width} and {count}" for name, (width, count) in sizes.items())
    raise BuildError(
        f"an image encoder of width {width} with {count} layers is no published size ({known}); name the model's "
        "config with 'config:'"
    )

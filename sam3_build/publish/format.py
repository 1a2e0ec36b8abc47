"""A publish format: what a product loads of a target, in a folder of its own beside what is published for everybody.

A layout names it (`Layout.published_as`), and `formats/<name>.py` declares it: `FORMAT`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

from sam3_build import registry
from sam3_build.errors import BuildError, did_you_mean
from sam3_build.plugins import Precision
from sam3_build.spec import ComponentSpec, Profile

_FOLDER = "publish/formats"


@dataclass(frozen=True)
class Network:
    """A component as a target publishes it in one precision.

    graph:    name -> file: the ONNX file first, then its external data, which it calls by name
    engine:   the file that was built of it, where the target's backend builds engines
    tensors:  name -> dims of its inputs and outputs: sizes, and names of those that are open
    profiles: dim -> (min, opt, max), for each shape profile of the engine
    """

    component: ComponentSpec
    graph: Mapping[str, Path]
    engine: Path | None
    tensors: Mapping[str, tuple[int | str, ...]]
    profiles: tuple[Profile, ...]


@dataclass(frozen=True)
class Deployment:
    """What a target publishes in one precision. tools: distribution -> version of what built its engines."""

    target: str
    backend: str
    precision: Precision
    networks: Mapping[str, Network]
    tools: Mapping[str, str]


@dataclass(frozen=True)
class Format:
    """What a product loads.

    refuses: (the name of a target's backend) -> why nothing of it can be loaded, or None
    unfit:   (network) -> why its engine cannot serve, or None
    files:   (deployment) -> path below the published folder -> content; nothing where the product takes none of it
    notes:   (deployment) -> what each card says of it, in lines
    """

    name: str
    refuses: Callable[[str], str | None]
    unfit: Callable[[Network], str | None]
    files: Callable[[Deployment], Mapping[str, Path | bytes]]
    notes: Callable[[Deployment], Sequence[str]]


@cache
def format_named(name: str) -> Format:
    """Return the format that `formats/<name>.py` declares."""
    known = registry.names(_FOLDER)
    if name not in known:
        raise BuildError(
            f"no publish format named {name!r}{did_you_mean(name, known)} (to add it, create "
            f"sam3_build/{_FOLDER}/{name}.py)"
        )
    found: object = getattr(import_module(f"sam3_build.publish.formats.{name}"), "FORMAT", None)
    if not isinstance(found, Format):
        raise BuildError(f"sam3_build/{_FOLDER}/{name}.py declares no FORMAT: it must be a Format of {__name__}")
    return found

"""Paths of manifests: expands what a person wrote, and gives a manifest the identity that its folder belongs to."""

from __future__ import annotations

import os
import shlex
from pathlib import Path, PurePosixPath

DEFAULT_MANIFEST = "sam3_mini"


def expanded(written: str) -> Path:
    """Return a path as written, but for a `~` at its beginning: the home folder that it stands for, if there is one."""
    # Path.expanduser takes `./~` for a home folder, and raises for a user that does not exist.
    return Path(os.path.expanduser(written))  # noqa: PTH111


def identity(manifest: Path, checkout: Path) -> str:
    """Return what tells a manifest from every other one: its path from the checkout, which may be moved.

    One outside of the checkout has its absolute path. Folders that are links are followed, for they hold the same
    neighbours; a manifest that is a link is one of its own, since its relative paths lead elsewhere.
    """
    path, root = (Path(os.path.realpath(folder)) for folder in (manifest.parent, checkout))
    path /= manifest.name
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def doit_call(identity: str) -> str:
    """Return how somebody calls doit in the checkout for a manifest: `doit manifest=mine`, by its path elsewhere.

    Of one outside of the checkout only the file name is given: its folder is of no use on another machine.
    """
    path = PurePosixPath(identity)
    if path.is_absolute():
        name = f"path/to/{path.name}"
    else:
        is_named = path.parent == PurePosixPath("manifests") and path.suffix == ".yaml"
        name = path.stem if is_named else identity
    return f"doit {shlex.quote(f'manifest={name}')}"

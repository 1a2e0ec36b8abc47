"""The folder is the registry: a plug-in is one file, or one folder with a file named like its kind, found by name."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path

from sam3_build.errors import BuildError, did_you_mean
from sam3_build.spec import Backend, ModelFamily, Patch, Precision, Stage

PACKAGE = Path(__file__).parent


@cache
def names(folder: str) -> tuple[str, ...]:
    """Return the plug-ins in `sam3_build/<folder>/`, sorted: file stems, and names of folders that hold a plug-in."""
    entries = (PACKAGE / folder).iterdir()
    return tuple(
        sorted(e.stem for e in entries if not e.name.startswith(("_", ".")) and (e.is_dir() or e.suffix == ".py"))
    )


def _load(folder: str, name: str, constant: str, module: str) -> object:
    if name not in names(folder):
        hint = did_you_mean(name, names(folder))
        raise BuildError(
            f"no {constant.lower()} named {name!r}{hint} (to add it, create sam3_build/{folder}/{name}.py)"
        )
    try:
        found: object = getattr(import_module(f"sam3_build.{module}"), constant, None)
    except SyntaxError as error:
        raise BuildError(f"{error.filename}:{error.lineno}: this is not Python: {error.msg}") from error
    if found is None:
        raise BuildError(f"sam3_build/{module.replace('.', '/')}.py declares no {constant}")
    return found


def family(name: str) -> ModelFamily:
    """Return the family declared in `families/<name>/family.py`."""
    found = _load("families", name, "FAMILY", f"families.{name}.family")
    assert isinstance(found, ModelFamily)
    return found


def patch(name: str) -> Patch:
    """Return the patch declared in `patches/<name>.py`."""
    found = _load("patches", name, "PATCH", f"patches.{name}")
    assert isinstance(found, Patch)
    return found


def precision(name: str) -> Precision:
    """Return the precision recipe declared in `precisions/<name>.py`."""
    found = _load("precisions", name, "PRECISION", f"precisions.{name}")
    assert isinstance(found, Precision)
    return found


def backend(name: str) -> Backend:
    """Return the backend declared in `backends/<name>.py`."""
    found = _load("backends", name, "BACKEND", f"backends.{name}")
    assert isinstance(found, Backend)
    return found


def stage(name: str) -> Stage:
    """Return the stage declared in `stages/<name>.py`."""
    found = _load("stages", name, "STAGE", f"stages.{name}")
    assert isinstance(found, Stage)
    return found

"""The folder is the registry: a plug-in is one file, or one folder with a file named like its kind, found by name."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar, cast

from sam3_build import family_checks
from sam3_build.errors import BuildError, did_you_mean
from sam3_build.plugins import Backend, Patch, Precision, ResultKind, Stage
from sam3_build.spec import ModelFamily

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sam3_build.family_code import Array, FamilyCode, KeyTables, Networks, Prompts, Results
    from sam3_build.pipeline.loop import Finder, Follower, LoopCode, LoopNetwork

Plugin = TypeVar("Plugin")

PACKAGE = Path(__file__).parent


@cache
def names(folder: str) -> tuple[str, ...]:
    """Return the plug-ins in `sam3_build/<folder>/`, sorted: file stems, and names of folders that hold a plug-in."""
    entries = (PACKAGE / folder).iterdir()
    return tuple(
        sorted(e.stem for e in entries if not e.name.startswith(("_", ".")) and (e.is_dir() or e.suffix == ".py"))
    )


def _load(folder: str, name: str, constant: str, module: str, kind: type[Plugin]) -> Plugin:
    file = f"sam3_build/{module.replace('.', '/')}.py"
    if name not in names(folder):
        hint = did_you_mean(name, names(folder))
        raise BuildError(f"no {constant.lower()} named {name!r}{hint} (to add it, create {file})")
    try:
        found: object = getattr(import_module(f"sam3_build.{module}"), constant, None)
    except SyntaxError as error:
        raise BuildError(f"{error.filename}:{error.lineno}: this is not Python: {error.msg}") from error
    if not isinstance(found, kind):
        raise BuildError(f"{file} declares no {constant}: it must be a {kind.__name__} of {kind.__module__}")
    return found


@cache
def family(name: str) -> ModelFamily:
    """Return the family declared in `families/<name>/family.py`. BuildError lists what is wrong with it."""
    found = _load("families", name, "FAMILY", f"families.{name}.family", ModelFamily)
    if found.name != name:
        raise BuildError(
            f"sam3_build/families/{name}/family.py: is called {found.name!r}; a family has its folder's name"
        )
    if problems := family_checks.problems(found):
        raise BuildError(f"sam3_build/families/{name}/family.py: " + "\n  ".join(problems))
    return found


@cache
def family_code(name: str) -> FamilyCode:
    """Return a family's code. Each part is imported when it is asked for, and BuildError raised when it lacks."""
    return _FamilyCode(name)


def code_modules(name: str, *parts: str) -> tuple[str, ...]:
    """Return the modules, as recipes name them, of these parts of a family's code."""
    return tuple(f"families.{name}.{part}" for part in parts)


def has_code(name: str, part: str) -> bool:
    """Tell whether a family has this part of its code."""
    return (PACKAGE / "families" / name / f"{part}.py").is_file()


def key_tables() -> dict[str, KeyTables]:
    """Return family -> the tables of its checkpoints, of those that have any."""
    return {name: family_code(name).keys for name in names("families") if has_code(name, "keys")}


class _FamilyCode:
    """The modules of a family's folder, imported one by one."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def family(self) -> ModelFamily:
        return family(self._name)

    @property
    def keys(self) -> KeyTables:
        from sam3_build.family_code import KeyTables

        (module,) = code_modules(self._name, "keys")
        return _load("families", self._name, "KEYS", module, KeyTables)

    @property
    def modules(self) -> Networks:
        return cast("Networks", self._import("modules"))

    @property
    def prompts(self) -> Prompts:
        return cast("Prompts", self._import("prompts"))

    @property
    def results(self) -> Results:
        return cast("Results", self._import("results"))

    def loop(self, name: str) -> LoopCode:
        module = self._import("loops")
        if not callable(found := getattr(module, name, None)):
            raise BuildError(f"sam3_build/families/{self._name}/loops.py has no function {name}, the loop's")
        return cast("LoopCode", found)

    def tracker(self, loop: str) -> Callable[[Mapping[str, LoopNetwork], int], Follower] | None:
        found = getattr(self._import("loops"), "TRACKERS", {}).get(loop)
        return cast("Callable[[Mapping[str, LoopNetwork], int], Follower] | None", found)

    def finder(self, loop: str) -> Callable[[Mapping[str, LoopNetwork], int, Mapping[str, Array]], Finder] | None:
        found = getattr(self._import("loops"), "FINDERS", {}).get(loop)
        return cast("Callable[[Mapping[str, LoopNetwork], int, Mapping[str, Array]], Finder] | None", found)

    def _import(self, part: str) -> ModuleType:
        if not has_code(self._name, part):
            raise BuildError(f"family {self._name!r} has no sam3_build/families/{self._name}/{part}.py")
        (module,) = code_modules(self._name, part)
        return import_module(f"sam3_build.{module}")


@cache
def patch(name: str) -> Patch:
    """Return the patch declared in `patches/<name>.py`."""
    return _load("patches", name, "PATCH", f"patches.{name}", Patch)


@cache
def precision(name: str) -> Precision:
    """Return the precision recipe declared in `precisions/<name>.py`."""
    return _load("precisions", name, "PRECISION", f"precisions.{name}", Precision)


@cache
def backend(name: str) -> Backend:
    """Return the backend declared in `backends/<name>.py`."""
    return _load("backends", name, "BACKEND", f"backends.{name}", Backend)


@cache
def stage(name: str) -> Stage:
    """Return the stage declared in `stages/<name>.py`."""
    return _load("stages", name, "STAGE", f"stages.{name}", Stage)


@cache
def result(name: str) -> ResultKind:
    """Return the kind of result declared in `results/<name>/result.py`."""
    return _load("results", name, "RESULT", f"results.{name}.result", ResultKind)

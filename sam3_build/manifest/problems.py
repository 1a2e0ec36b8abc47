"""What is wrong with a manifest: collected with its place, and put in a manifest's words, not in pydantic's."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic_core import ErrorDetails

from sam3_build.errors import did_you_mean
from sam3_build.manifest.yaml_tree import Keys, Place, Problem, Value


class Report:
    """Collects problems with their places. What stands on something broken is not judged: it would only add noise."""

    def __init__(self, root: Value, files: Sequence[Path], problems: Iterable[Problem]) -> None:
        """Start with the problems found while `root` was read from `files`."""
        self.root = root
        self._files = files
        self._problems = list(problems)
        unread = (p.keys for p in self._problems)
        self._broken = {k for k in unread if k and ((v := root.get(k)) is None or v.data is None)}

    def add(self, keys: Keys, text: str) -> None:
        """Note what is wrong with the value at `keys`."""
        self._add(self.root.value_place(keys), keys, text)

    def add_key(self, keys: Keys, text: str) -> None:
        """Note what is wrong with the key at `keys` itself."""
        self._add(self.root.key_place(keys), keys, text)

    def add_broken(self, keys: Keys, text: str) -> None:
        """Note what is wrong with the value at `keys`, of which nothing is left to judge."""
        self.add(keys, text)
        self._broken.add(keys)

    def is_broken(self, keys: Keys) -> bool:
        """Tell whether the value at `keys`, something in it or something around it cannot be judged."""
        return any(b[: len(keys)] == keys or keys[: len(b)] == b for b in self._broken)

    def sorted(self) -> list[Problem]:
        """Return all problems, by file and line, each once."""
        return sorted(dict.fromkeys(self._problems), key=lambda p: (self._files.index(p.place.file), p.place.line))

    def _add(self, place: Place, keys: Keys, text: str) -> None:
        if not self.is_broken(keys):
            self._problems.append(Problem(place, keys, text))


def unknown(what: str, name: str, known: Iterable[str], whose: str = "") -> str:
    """Say that there is no such thing, what is allowed, and what was perhaps meant."""
    names = sorted(known)
    hint = did_you_mean(name, names)
    allowed = f" (allowed: {', '.join(names)})" if names and "did you mean" in hint else ""
    return f"unknown {what} {name!r}{whose}{allowed}{hint.replace('; known', '; allowed')}"


def kind(path: Path) -> Literal["file", "folder", "device"] | None:
    """Return what lies at `path`; None for nothing, which is also what a name leads to that no file can have."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return None
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "device"


def no_file(path: Path, written: str, pattern: str = "*") -> str:
    """Say what lies at `path`, which leads to no file, or which of its siblings (matching `pattern`) comes nearest."""
    if what := kind(path):
        return f"{written!r} is a {what}, a file is needed"
    if kind(path.parent) != "folder":
        return f"no such file {path.name!r}: its folder {str(path.parent)!r} does not exist"
    hint = did_you_mean(path.name, (p.name for p in path.parent.glob(pattern)))
    return f"no such file {path.name!r}{hint if len(hint) < 200 else ''}"


def wording(error: ErrorDetails) -> str:
    """Return what pydantic found, in a manifest's words."""
    what, given, context = error["type"], error["input"], error.get("ctx", {})
    if what == "missing":
        return f"required key {str(error['loc'][-1])!r} is missing"
    if what == "value_error":
        return str(context["error"])
    if what == "string_type" and error["loc"][0] == "precisions":
        return f"must be the name of a precision such as fp16, found {found(given)}"
    if what == "string_type":
        quote = "; put it in quotes" if isinstance(given, bool | int | float) else ""
        return f"must be a string, found {found(given)}{quote}"
    if what in ("greater_than_equal", "less_than_equal"):
        side = f"at least {context['ge']}" if "ge" in context else f"at most {context['le']}"
        return f"must be {side}, found {found(given)}"
    types = {
        "int_type": "an integer",
        "int_from_float": "an integer",
        "float_type": "a number",
        "bool_type": "true or false",
        "tuple_type": "a list",
        "list_type": "a list",
        "dict_type": "a mapping",
        "model_type": "a mapping",
        "dataclass_type": "a mapping",
    }
    example = ""
    if what == "dict_type" and error["loc"] == ("components",):
        names = [given] if isinstance(given, str) else given if isinstance(given, list) else []
        listed = ", ".join(f"{name}: {{}}" for name in names if isinstance(name, str))
        example = f"; write {{{listed or 'decoder: {}'}}}"
    return f"{f'must be {types[what]}' if what in types else error['msg']}, found {found(given)}{example}"


def found(given: object) -> str:
    """Return a value as a message shows it."""
    if given is None:
        return "nothing (null)"
    if isinstance(given, bool):
        return f"the boolean {str(given).lower()}"
    if isinstance(given, str):
        return f"the string {given!r}"
    if isinstance(given, int | float):
        return f"the number {given}"
    return "a mapping" if isinstance(given, Mapping) else f"the list {json.dumps(given)}"

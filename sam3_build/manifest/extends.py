"""Takes a manifest's path, returns its tree merged over what it `extends`, the files read and what is wrong with them.

It alone reads manifest files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from sam3_build.errors import did_you_mean
from sam3_build.manifest.narrow import narrowed
from sam3_build.manifest.old_names import OldNames
from sam3_build.manifest.paths import expanded
from sam3_build.manifest.problems import found, kind, no_file, unknown
from sam3_build.manifest.types import SourceFile
from sam3_build.manifest.yaml_tree import Keys, Place, Problem, Value, read_yaml

# Mappings of which a list selects entries, where an extended manifest has them, and what an entry is called.
SELECTABLE: Mapping[str, str] = {"components": "component", "shape_profiles": "shape profile", "targets": "target"}


class Source(NamedTuple):
    """What was read: the merged tree (None when there is nothing to go on with), every file, and what is wrong.

    notes: what to change in the files, and is no error
    """

    root: Value | None
    files: tuple[SourceFile, ...]
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...] = ()


def read(file: Path) -> Source:
    """Read `file` and what it extends. Mappings merge, lists and scalars replace, null removes.

    A list in the place of a mapping that SELECTABLE has selects from it. What was inherited and means nothing beside
    what a more derived file chose is left out (see narrow.py).
    """
    reader = _Reader()
    root = reader.read(file, ())
    if root is not None:
        root = narrowed(root, [source.path for source in reader.files], reader.changes)
    return Source(root, tuple(reader.files), tuple(reader.problems), tuple(reader.old_names.notes))


class _Reader:
    """Reads a manifest and what it extends, and notes the files, what is wrong, and what was changed where."""

    def __init__(self) -> None:
        self.files: list[SourceFile] = []
        self.problems: list[Problem] = []
        self.changes: dict[Keys, Place] = {}
        self.old_names = OldNames(self.problems)

    def read(self, file: Path, chain: tuple[Path, ...]) -> Value | None:
        """Return the merged tree of `file`, which those of `chain` extend one after another."""
        try:
            data = file.read_bytes()
        except OSError as error:
            self._add(Place(file, 0), (), f"cannot be read: {error.strerror}")
            return None
        self.files.append(SourceFile(file, hashlib.sha256(data).hexdigest()))
        tree = read_yaml(file, data, self.problems)
        tree = self.old_names.in_manifest(tree) if tree is not None else None
        if tree is None or not isinstance(tree.data, dict) or "extends" not in tree.data:
            return tree
        extends, place = tree.data["extends"], tree.keys["extends"]
        over = Value({k: v for k, v in tree.data.items() if k != "extends"}, tree.place, tree.keys)
        chain = (*chain, file.resolve())
        if not isinstance(extends.data, str) or not extends.data:
            self._add(place, ("extends",), "must be the path of another manifest, relative to this file")
            return None
        base_file = file.parent / expanded(extends.data)
        if kind(base_file) != "file":
            self._add(extends.place, ("extends",), no_file(base_file, extends.data, "*.y*ml"))
            return None
        if base_file.resolve() in chain:
            circle = [*chain[chain.index(base_file.resolve()) :], base_file.resolve()]
            names = " -> ".join(p.name for p in circle)
            self._add(extends.place, ("extends",), f"a manifest cannot extend itself: {names}")
            return None
        base = self.read(base_file, chain)
        return None if base is None else self._merge(base, over, ())

    def _merge(self, base: Value, over: Value, keys: Keys) -> Value:
        selectable = isinstance(base.data, dict) and keys in [(name,) for name in SELECTABLE]
        if isinstance(base.data, dict) and selectable and isinstance(over.data, tuple):
            return self._select(base.data, over.data, over.place, keys)
        if isinstance(base.data, dict) and selectable and not isinstance(over.data, dict):
            self._add(over.place, keys, _no_selection(over.data, base.data))
            return over._replace(data=None)
        if not isinstance(base.data, dict) or not isinstance(over.data, dict):
            if base.plain() != over.plain():
                self.changes[keys] = over.place
            return over
        data, places = dict(base.data), dict(base.keys)
        for key, value in over.data.items():
            at = (*keys, key)
            if value.data is None and any(p.keys == at and p.place == value.place for p in self.problems):
                continue  # not null: nothing can be read there
            if value.data is None:
                if (gone := data.pop(key, None)) is None:
                    self._add(over.keys[key], at, _nothing_to_remove(key, base.data))
                else:
                    self._remove(gone, over.keys[key], at)
                continue
            data[key] = self._merge(data[key], value, at) if key in data else value
            places[key] = over.keys[key]
        return Value(data, over.place, places)

    def _select(self, base: Mapping[str, Value], names: tuple[Value, ...], place: Place, keys: Keys) -> Value:
        """Return the entries of `base` that `names` lists, in the order of the list."""
        what, data, places = SELECTABLE[str(keys[0])], dict[str, Value](), dict[str, Place]()
        for i, item in enumerate(names):
            name = item.data
            if not isinstance(name, str):
                text = f"must be the name of a {what} of the extended manifest, found {found(item.plain())}"
                self._add(item.place, (*keys, i), f"{text}; to give options, write a mapping and no list")
            elif name not in base:
                text = unknown(what, name, base, " of the extended manifest, from which a list selects")
                self._add(item.place, (*keys, i), text)
            elif name in data:
                self._add(item.place, (*keys, i), f"{what} {json.dumps(name)} is listed twice")
            else:
                data[name], places[name] = base[name], item.place
        for name in base.keys() - data.keys():
            self._remove(base[name], place, (*keys, name))
        return Value(data, place, places)

    def _remove(self, value: Value, place: Place, keys: Keys) -> None:
        """Note that `place` removes the value at `keys`, and with it what it holds."""
        self.changes[keys] = place
        for key, part in value.data.items() if isinstance(value.data, dict) else ():
            self._remove(part, place, (*keys, key))

    def _add(self, place: Place, keys: Keys, text: str) -> None:
        self.problems.append(Problem(place, keys, text))


def _nothing_to_remove(key: str, known: Mapping[str, Value]) -> str:
    return f"null removes a key of the extended manifest, which has no {key!r} here{did_you_mean(key, known)}"


def _no_selection(given: object, known: Mapping[str, Value]) -> str:
    """Say that a scalar is neither a mapping nor a list that selects, and how to write the one that was meant."""
    names = ", ".join([given] if isinstance(given, str) and given in known else known)
    return (
        f"must be a mapping, or a list that selects from the extended manifest, found {found(given)}; write [{names}]"
    )

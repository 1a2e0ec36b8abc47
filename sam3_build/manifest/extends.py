"""A manifest's path in; its tree, merged over what it `extends`, the files read and what is wrong with them out.

It alone reads manifest files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from sam3_build.errors import did_you_mean
from sam3_build.manifest.problems import kind, no_file
from sam3_build.manifest.types import SourceFile
from sam3_build.manifest.yaml_tree import Keys, Place, Problem, Value, read_yaml


class Source(NamedTuple):
    """What was read: the merged tree (None when there is nothing to go on with), every file, and what is wrong."""

    root: Value | None
    files: tuple[SourceFile, ...]
    problems: tuple[Problem, ...]


def read(file: Path) -> Source:
    """Read `file` and what it extends. Mappings merge, lists and scalars replace, null removes."""
    problems: list[Problem] = []
    files: list[SourceFile] = []
    root = _read(file, (), files, problems)
    return Source(root, tuple(files), tuple(problems))


def _read(file: Path, chain: tuple[Path, ...], files: list[SourceFile], problems: list[Problem]) -> Value | None:
    try:
        data = file.read_bytes()
    except OSError as error:
        problems.append(Problem(Place(file, 0), (), f"cannot be read: {error.strerror}"))
        return None
    files.append(SourceFile(file, hashlib.sha256(data).hexdigest()))
    tree = read_yaml(file, data, problems)
    if tree is None or not isinstance(tree.data, dict) or "extends" not in tree.data:
        return tree
    extends, place = tree.data["extends"], tree.keys["extends"]
    over = Value({k: v for k, v in tree.data.items() if k != "extends"}, tree.place, tree.keys)
    chain = (*chain, file.resolve())
    if not isinstance(extends.data, str) or not extends.data:
        problems.append(Problem(place, ("extends",), "must be the path of another manifest, relative to this file"))
        return None
    base_file = file.parent / extends.data
    if kind(base_file) != "file":
        problems.append(Problem(extends.place, ("extends",), no_file(base_file, extends.data, "*.y*ml")))
        return None
    if base_file.resolve() in chain:
        circle = [*chain[chain.index(base_file.resolve()) :], base_file.resolve()]
        names = " -> ".join(p.name for p in circle)
        problems.append(Problem(extends.place, ("extends",), f"a manifest cannot extend itself: {names}"))
        return None
    base = _read(base_file, chain, files, problems)
    return None if base is None else _merge(base, over, (), problems)


def _merge(base: Value, over: Value, keys: Keys, problems: list[Problem]) -> Value:
    if not isinstance(base.data, dict) or not isinstance(over.data, dict):
        return over
    data, places = dict(base.data), dict(base.keys)
    for key, value in over.data.items():
        if value.data is None and any(p.keys == (*keys, key) and p.place == value.place for p in problems):
            continue  # not null: nothing can be read there
        if value.data is None:
            if data.pop(key, None) is None:
                problems.append(Problem(over.keys[key], (*keys, key), _nothing_to_remove(key, base.data)))
            continue
        data[key] = _merge(data[key], value, (*keys, key), problems) if key in data else value
        places[key] = over.keys[key]
    return Value(data, over.place, places)


def _nothing_to_remove(key: str, known: Mapping[str, Value]) -> str:
    return f"null removes a key of the extended manifest, which has no {key!r} here{did_you_mean(key, known)}"

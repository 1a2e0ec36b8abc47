"""Reads and writes a manifest's lock file: what `sam3-build search` found.

`manifests/<name>.lock.yaml` belongs to `<name>.yaml` alone, and to none that extends it: other weights overflow
elsewhere. Nodes are named literally; no character of a name is a pattern.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from sam3_build.errors import did_you_mean
from sam3_build.manifest.lock import lock_path
from sam3_build.manifest.old_names import OldNames, present_name
from sam3_build.manifest.types import Lock, SourceFile
from sam3_build.manifest.yaml_tree import Keys, Place, Problem, Value, read_yaml
from sam3_build.spec import BASELINE, Json

HEADER = """\
# Nodes that stay FP32, by component and precision: found by `sam3-build search`, in the key of what is built.
# An entry is of one graph (nodes, operators and edges, not weights); any other refuses it: search again, or delete it.
"""

# The keys of an entry; all but the first two record how it was found.
REQUIRED = ("graph", "keep_fp32")
KEYS = (*REQUIRED, "nodes", "trials", "cases", "gates")

Locks = Mapping[str, Mapping[str, Lock]]


class LockFile(NamedTuple):
    """What was read: locks by component and precision, the file (None: there is none), and what is wrong with it."""

    locks: Locks
    file: SourceFile | None
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...] = ()


def read_lock(manifest: Path, components: Iterable[str], precisions: Iterable[str]) -> LockFile:
    """Read the lock of a manifest that has these components and selects these precisions."""
    path = lock_path(manifest)
    problems: list[Problem] = []
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return LockFile({}, None, ())
    except OSError as error:
        return LockFile({}, None, (Problem(Place(path, 0), (), f"cannot be read: {error.strerror}"),))
    tree = read_yaml(path, data, problems)
    file = SourceFile(path, hashlib.sha256(data).hexdigest())
    if tree is None or problems:
        return LockFile({}, file, tuple(problems))
    old_names = OldNames(problems)
    tree = old_names.in_lock(tree)
    reader = _LockReader(tree, problems)
    locks = {
        component: {
            precision: lock
            for precision in reader.names((component,), "precision", [p for p in precisions if p != BASELINE])
            if (lock := reader.lock(component, precision))
        }
        for component in reader.names((), "component", components)
    }
    return LockFile(locks, file, tuple(problems), tuple(old_names.notes))


class _LockReader:
    """Reads parts of a lock's tree; what is wrong goes to `problems`, with its line."""

    def __init__(self, tree: Value, problems: list[Problem]) -> None:
        self._tree = tree
        self._problems = problems

    def names(self, keys: Keys, what: str, known: Iterable[str]) -> list[str]:
        """Return the keys of the mapping at `keys`, each of which must be one of the manifest's."""
        found, known = self._mapping(keys), list(known)
        for name in [name for name in found if name not in known]:
            advice = f"; the manifest has no such {what}: delete this entry{did_you_mean(name, known)}"
            self._add((*keys, name), f"unknown {what} {name!r}{advice}")
        return [name for name in found if name in known]

    def lock(self, component: str, precision: str) -> Lock | None:
        """Return one entry; None when something is wrong with it."""
        keys = (component, precision)
        entry, before = self._mapping(keys), len(self._problems)
        for name in [name for name in entry if name not in KEYS]:
            self._add((*keys, name), f"unknown key {name!r}{did_you_mean(name, KEYS)}")
        for name in [name for name in REQUIRED if name not in entry]:
            self._add(keys, f"required key {name!r} is missing; search again")
        graph, nodes = entry.get("graph"), entry.get("keep_fp32")
        if graph is not None and not (isinstance(graph.data, str) and len(graph.data) == 64):
            self._add((*keys, "graph"), "must be the digest of the graph that was searched; search again")
        if nodes is not None and not _names(nodes):
            self._add((*keys, "keep_fp32"), "must be a list of node names, each once, at least one")
        if graph is None or nodes is None or len(self._problems) > before:
            return None
        return Lock(str(graph.data), tuple(sorted(_names(nodes))))

    def _mapping(self, keys: Keys) -> Mapping[str, Value]:
        value = self._tree.get(keys)
        if value is not None and isinstance(value.data, dict):
            return value.data
        self._add(keys, "must be a mapping; search again")
        return {}

    def _add(self, keys: Keys, text: str) -> None:
        self._problems.append(Problem(self._tree.key_place(keys), keys, text))


def _names(nodes: Value) -> list[str]:
    """Return the names that a list holds; none when it is not a list of names, each once."""
    listed = nodes.data if isinstance(nodes.data, tuple) else ()
    names = [item.data for item in listed if isinstance(item.data, str)]
    return names if len(set(names)) == len(listed) else []


# ------------------------------------------------------------------ writing


def with_entry(text: bytes | None, component: str, precision: str, entry: Mapping[str, Json] | None) -> bytes | None:
    """Return the text of a lock file with one entry put in or (None) taken out, sorted; None when nothing is left.

    `text` is what the file holds; it was read before without a problem.
    """
    import yaml

    written = yaml.safe_load(text) if text else {}
    assert isinstance(written, dict)
    locks = {name: {present_name(p): lock for p, lock in entries.items()} for name, entries in written.items()}
    locks.setdefault(component, {}).pop(precision, None)
    if entry is not None:
        locks[component][precision] = {key: entry[key] for key in KEYS if key in entry}
    locks = {name: {p: locks[name][p] for p in sorted(locks[name])} for name in sorted(locks) if locks[name]}
    if not locks:
        return None
    return (HEADER + yaml.safe_dump(locks, sort_keys=False, width=1000)).encode()

"""Takes the tree of a manifest or lock file, returns it with precisions under their present names, and a note for each.

A name that was given up is read for one release, so that manifests written before go on working.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from sam3_build import registry
from sam3_build.manifest.yaml_tree import Keys, Place, Problem, Value

# Old name of a precision -> its present one.
OLD_PRECISIONS: Mapping[str, str] = {"prefix": "fp16_prefix"}


def present_name(precision: str) -> str:
    """Return the present name of a precision; a plug-in that bears an old name is meant by it."""
    new = OLD_PRECISIONS.get(precision, precision)
    return precision if precision in registry.names("precisions") else new


class OldNames:
    """Renames, and collects a note for each old name."""

    def __init__(self, problems: list[Problem]) -> None:
        """Start without notes; where both names stand, that goes to `problems`."""
        self.notes: list[Problem] = []
        self._problems = problems

    def in_manifest(self, root: Value) -> Value:
        """Return a manifest's tree with the present names: in `precisions`, in options and in tolerances."""
        root = self._at(root, ("precisions",), self._listed)
        for component in _entries(root, ("components",)):
            root = self._at(root, ("components", component, "precisions"), self._mapped)
        return self._at(root, ("tolerances",), self._mapped)

    def in_lock(self, root: Value) -> Value:
        """Return a lock file's tree with the present names."""
        for component in _entries(root, ()):
            root = self._at(root, (component,), self._mapped)
        return root

    def _at(self, root: Value, keys: Keys, change: Callable[[Value, Keys], Value]) -> Value:
        value = root.get(keys)
        return root if value is None else _put(root, keys, change(value, keys))

    def _listed(self, value: Value, keys: Keys) -> Value:
        if not isinstance(value.data, tuple):
            return value
        items = []
        for i, item in enumerate(value.data):
            new = self._renamed(item.data, item.place, (*keys, i)) if isinstance(item.data, str) else item.data
            items.append(item._replace(data=new))
        return value._replace(data=tuple(items))

    def _mapped(self, value: Value, keys: Keys) -> Value:
        if not isinstance(value.data, dict):
            return value
        data: dict[str, Value] = {}
        places: dict[str, Place] = {}
        for name, entry in value.data.items():
            new = self._renamed(name, value.keys[name], (*keys, name))
            if new != name and new in value.data:
                text = f"is the old name of {new!r}, which stands beside it: remove one of the two"
                self._problems.append(Problem(value.keys[name], (*keys, name), text))
                continue
            data[new], places[new] = entry, value.keys[name]
        return value._replace(data=data, keys=places)

    def _renamed(self, name: str, place: Place, keys: Keys) -> str:
        new = present_name(name)
        if new != name:
            text = (
                f"precision {name!r} is called {new!r} now, and the old name is read for this release only; rename it"
            )
            self.notes.append(Problem(place, keys, text))
        return new


def _entries(root: Value, keys: Keys) -> Iterator[str]:
    value = root.get(keys)
    yield from value.data if value is not None and isinstance(value.data, dict) else ()


def _put(root: Value, keys: Keys, value: Value) -> Value:
    """Return `root` with `value` in the place of what stands at `keys`."""
    if not keys:
        return value
    assert isinstance(root.data, dict)
    first = str(keys[0])
    return root._replace(data={**root.data, first: _put(root.data[first], keys[1:], value)})

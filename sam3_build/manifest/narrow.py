"""Takes a merged tree, returns it without what was inherited for things that a more derived file does not select.

What is written for such a thing in the file that leaves it out, or in one that extends that file, stays: a mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from sam3_build import registry
from sam3_build.manifest.yaml_tree import Keys, Place, Value
from sam3_build.spec import BASELINE

# What a file took away of those that it extends -> where it says so; the most derived file counts.
Removed = dict[Keys, Place]

# Whether what stands at the first place was inherited by the file that the second one is in.
Inherited = Callable[[Place, Place], bool]


def narrowed(root: Value, files: Sequence[Path], removed: Mapping[Keys, Place]) -> Value:
    """Return `root`, merged of `files` (the manifest first, then what it extends), without what nothing selects.

    That is: options and tolerances of precisions that `precisions` does not list, tolerances of components that were
    `removed`, and of a target's pick the profiles that were; a pick of which nothing is left counts as none. Names that
    mean nothing stay.
    """
    depths = {file: depth for depth, file in enumerate(files)}

    def inherited(place: Place, by: Place) -> bool:
        return depths[place.file] > depths[by.file]

    for keys in _of_precisions(root, inherited):
        root = _without(root, keys)
    for keys in _of_components(root, removed, inherited):
        root = _without(root, keys)
    return _with_picks(root, removed, inherited)


def _of_precisions(root: Value, inherited: Inherited) -> Iterator[Keys]:
    """Yield where options and tolerances of precisions stand that are not selected."""
    selection = root.get(("precisions",))
    if selection is None or not isinstance(selection.data, tuple):
        return
    selected = [item.data for item in selection.data]
    unselected = [name for name in registry.names("precisions") if name not in selected]
    parents: list[Keys] = [("components", name, "precisions") for name in _entries(root, ("components",))]
    for parent in [*parents, ("tolerances",)]:
        places = _entries(root, parent)
        for name in unselected:
            judged = name == BASELINE and parent == ("tolerances",)  # whatever is selected: others are measured from it
            if name in places and not judged and inherited(places[name], selection.place):
                yield (*parent, name)


def _of_components(root: Value, removed: Mapping[Keys, Place], inherited: Inherited) -> Iterator[Keys]:
    """Yield where tolerances of components stand that were removed."""
    components = _entries(root, ("components",))
    for precision in _entries(root, ("tolerances",)):
        for name, place in _entries(root, ("tolerances", precision)).items():
            by = removed.get(("components", name))
            if name not in components and by and inherited(place, by):
                yield "tolerances", precision, name


def _with_picks(root: Value, removed: Mapping[Keys, Place], inherited: Inherited) -> Value:
    """Return `root` with targets that pick no profile which was removed."""
    profiles = _entries(root, ("shape_profiles",))

    def stays(item: Value) -> bool:
        by = removed.get(("shape_profiles", str(item.data)))
        return str(item.data) in profiles or by is None or not inherited(item.place, by)

    for name in _entries(root, ("targets",)):
        keys: Keys = ("targets", name, "shape_profiles")
        pick = root.get(keys)
        if pick is None or not isinstance(pick.data, tuple):
            continue
        left = tuple(filter(stays, pick.data))
        if left != pick.data:
            root = _put(root, keys, pick._replace(data=left)) if left else _without(root, keys)
    return root


# ------------------------------------------------------------------ trees


def _entries(root: Value, keys: Keys) -> Mapping[str, Place]:
    """Return the keys of the mapping at `keys` and their places; none when there is no mapping."""
    value = root.get(keys)
    return {key: value.keys[key] for key in value.data} if value is not None and isinstance(value.data, dict) else {}


def _without(root: Value, keys: Keys) -> Value:
    return _put(root, keys, None)


def _put(root: Value, keys: Keys, value: Value | None) -> Value:
    """Return `root` with `value` at `keys`, which exists; None takes it out."""
    first, *rest = keys
    assert isinstance(root.data, dict) and isinstance(first, str)
    data = dict(root.data)
    if rest:
        data[first] = _put(data[first], tuple(rest), value)
    elif value is None:
        del data[first]
    else:
        data[first] = value
    return root._replace(data=data)

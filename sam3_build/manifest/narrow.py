"""Takes a merged tree, returns it without what was inherited and means nothing beside what a more derived file chose.

What is written for such a thing in the file that chooses, or in one that extends that file, stays: a mistake. So does a
name that means nothing whatever is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

from sam3_build import registry
from sam3_build.errors import BuildError
from sam3_build.manifest.checkpoints import KEYS as CHECKPOINT
from sam3_build.manifest.checkpoints import SOURCES
from sam3_build.manifest.weight_files import weight_files
from sam3_build.manifest.yaml_tree import Keys, Place, Value
from sam3_build.spec import BASELINE, Layout

# What a file took away of those that it extends, or gave another value -> where it says so, in the most derived file.
Changes = Mapping[Keys, Place]

# Whether what stands at the first place was inherited by the file that the second one is in.
Inherited = Callable[[Place, Place], bool]


class Void(NamedTuple):
    """Names that mean nothing in the mapping or list at `at`, where the file of `by` inherited them: it chose there."""

    at: Keys
    names: Collection[str]
    by: Place


def narrowed(root: Value, files: Sequence[Path], changes: Changes) -> Value:
    """Return `root`, merged of `files` (the manifest first, then what it extends), without what a choice makes void.

    A list or mapping of which nothing is left stays, but for a target's pick of profiles, which counts as none.
    """
    depths = {file: depth for depth, file in enumerate(files)}

    def inherited(place: Place, by: Place) -> bool:
        return depths[place.file] > depths[by.file]

    for voids in (
        _by_precisions(root),
        _by_layout(root, changes),
        _by_components(root, changes),
        _by_profiles(root, changes),
        _by_backends(root, changes),
        _by_source(root, changes, inherited),
    ):
        for void in voids:
            root = _without(root, void, inherited)
    return root


# ------------------------------------------------------------------ what each choice makes void


def _by_precisions(root: Value) -> Iterator[Void]:
    """Options and tolerances of precisions that `precisions` does not list, and targets that are left with none."""
    selection = root.get(("precisions",))
    if selection is None or not isinstance(selection.data, tuple):
        return
    selected = [item.data for item in selection.data]
    others = {name for name in registry.names("precisions") if name not in selected}
    for name in _entries(root, ("components",)):
        yield Void(("components", name, "precisions"), others, selection.place)
    yield Void(("tolerances",), others - {BASELINE}, selection.place)  # which is judged whatever is selected
    for target in _entries(root, ("targets",)):
        keys: Keys = ("targets", target, "precisions")
        picked = root.get(keys)
        listed = picked.data if picked is not None and isinstance(picked.data, tuple) else ()
        if listed and all(item.data in others for item in listed):
            yield Void(("targets",), {target}, selection.place)
        else:
            yield Void(keys, others, selection.place)


def _by_layout(root: Value, changes: Changes) -> Iterator[Void]:
    """Components, dimensions, and tolerances of these and of pipelines, that only other layouts of the family have."""
    chosen = root.get(("layout",))
    by = changes.get(("layout",)) if chosen is None else chosen.place
    family = root.get(("family",))
    if by is None or family is None or family.data not in registry.names("families"):
        return
    declared = registry.family(str(family.data))
    layouts, name = declared.layouts, declared.layout if chosen is None else chosen.data
    if not isinstance(name, str) or name not in layouts:
        return

    def elsewhere(parts: Callable[[Layout], Collection[str]]) -> set[str]:
        return {part for layout in layouts.values() for part in parts(layout)} - {*parts(layouts[name])}

    components = elsewhere(lambda layout: [component.name for component in layout.components])
    judged = elsewhere(_judged)
    yield Void(("components",), components, by)
    for precision in _entries(root, ("tolerances",)):
        yield Void(("tolerances", precision), judged, by)
    for profile in _entries(root, ("shape_profiles",)):
        yield Void(("shape_profiles", profile), elsewhere(lambda layout: layout.dynamic_dims), by)


def _judged(layout: Layout) -> list[str]:
    """Return what tolerances are given for: components, and pipelines by their labels."""
    return [*(c.name for c in layout.components), *(layout.label(pipeline.name) for pipeline in layout.pipelines)]


def _by_components(root: Value, changes: Changes) -> Iterator[Void]:
    """Tolerances of components that were removed."""
    for name, by in _removed(root, changes, "components"):
        for precision in _entries(root, ("tolerances",)):
            yield Void(("tolerances", precision), {name}, by)


def _by_profiles(root: Value, changes: Changes) -> Iterator[Void]:
    """What targets pick of profiles that were removed."""
    for name, by in _removed(root, changes, "shape_profiles"):
        for target in _entries(root, ("targets",)):
            yield Void(("targets", target, "shape_profiles"), {name}, by)


def _by_backends(root: Value, changes: Changes) -> Iterator[Void]:
    """What only other backends take, in targets whose backend was changed."""
    for target in _entries(root, ("targets",)):
        keys: Keys = ("targets", target, "backend")
        backend, names = root.get(keys), registry.names("backends")
        if keys in changes and backend is not None and backend.data in names:
            others = {key for name in names for key in _taken(name)}
            yield Void(keys[:-1], others - _taken(str(backend.data)), changes[keys])


def _taken(backend_name: str) -> set[str]:
    """Return the keys of a target that are its backend's own."""
    backend = registry.backend(backend_name)
    return {*(field.name for field in fields(backend.options)), *(["shape_profiles"] if backend.uses_profiles else [])}


# Keys of `checkpoint` that belong to the source named beside them -> the kinds of source that have them.
BELONGING: Mapping[str, tuple[str, ...]] = {
    "revision": ("hub",),
    "sha256": ("url",),
    "weights": ("path", "hub", "url"),
    "config": ("path", "hub", "url"),
    "licence": ("path", "hub", "url"),
}


def _by_source(root: Value, changes: Changes, inherited: Inherited) -> Iterator[Void]:
    """Of a checkpoint whose source was replaced: the earlier source, and what belongs to it.

    A config stays where the new source brings none, a URL or a path with none beside it: it describes a network, which
    has no other here.
    """
    places = {name: place for name, place in _entries(root, CHECKPOINT).items() if name in SOURCES}
    for source, place in places.items():
        if any(inherited(place, other) for other in places.values()):
            continue
        yield Void(CHECKPOINT, set(SOURCES) - {source}, place)
        for key, kinds in BELONGING.items():
            others = [kind for kind in kinds if kind != source and (kind in places or (*CHECKPOINT, kind) in changes)]
            by = place if others or source not in kinds else changes.get((*CHECKPOINT, source))
            if by and not (key == "config" and source in ("path", "url") and not _brings_config(root)):
                yield Void(CHECKPOINT, {key}, by)


def _brings_config(root: Value) -> bool:
    """Tell whether a config lies beside the weights at the checkpoint's path, if it has one."""
    if root.get((*CHECKPOINT, "path")) is None:
        return False
    try:
        return "config" in weight_files(root.path((*CHECKPOINT, "path")), None, _own_names(root))
    except (BuildError, OSError, ValueError):
        return False  # what is wrong with the path is said when it is checked


def _own_names(root: Value) -> tuple[str, ...]:
    """Return what the family calls its weights; nothing where no family of that name is there."""
    family = root.get(("family",))
    known = family is not None and family.data in registry.names("families")
    return registry.family(str(family.data)).weight_names if family and known else ()


# ------------------------------------------------------------------ trees


def _entries(root: Value, keys: Keys) -> Mapping[str, Place]:
    """Return the keys of the mapping at `keys` and their places; none when there is no mapping."""
    value = root.get(keys)
    return {key: value.keys[key] for key in value.data} if value is not None and isinstance(value.data, dict) else {}


def _removed(root: Value, changes: Changes, parent: str) -> Iterator[tuple[str, Place]]:
    """Yield what was removed of the mapping `parent`, and where."""
    left = _entries(root, (parent,))
    for keys, place in changes.items():
        if len(keys) == 2 and keys[0] == parent and keys[1] not in left:
            yield str(keys[1]), place


def _without(root: Value, void: Void, inherited: Inherited) -> Value:
    value = root.get(void.at)
    if value is None:
        return root
    if isinstance(value.data, tuple):
        left = [item for item in value.data if str(item.data) not in void.names or not inherited(item.place, void.by)]
        if len(left) < len(value.data):
            root = _put(root, void.at, value._replace(data=tuple(left)) if left else None)
        return root
    for name, place in _entries(root, void.at).items():
        if name in void.names and inherited(place, void.by):
            root = _put(root, (*void.at, name), None)
    return root


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

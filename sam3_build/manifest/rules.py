"""Rules that several parts of a manifest share, on names, lists and paths; each reports what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence

from sam3_build.manifest.problems import Report, kind, no_file, unknown
from sam3_build.manifest.yaml_tree import Keys
from sam3_build.spec import Layout, ModelFamily

NAME = "[a-z0-9][a-z0-9_-]*"


def is_known(keys: Keys, what: str, name: str, known: Iterable[str], report: Report, whose: str = "") -> bool:
    """Report a `name` that is not among the `known`; tell whether it is."""
    known = list(known)
    if name in known:
        return True
    report.add(keys, unknown(what, name, known, whose))
    return False


def is_of_another_layout(
    keys: Keys, what: str, family: ModelFamily, parts: Callable[[Layout], Collection[str]], report: Report
) -> bool:
    """Report the last key when another layout than the family's has it among its `parts`; tell whether that is so."""
    name, known = str(keys[-1]), parts(family.layouts[family.layout])
    others = [other for other, layout in family.layouts.items() if name in parts(layout)]
    if name in known or not others:
        return False
    missing = f"layout {family.layout!r} has no {what} {name!r}, but {', '.join(known)}"
    report.add_key(keys, f"{missing}; leave it out, or choose `layout: {others[0]}`")
    return True


def check_list(keys: Keys, what: str, names: Sequence[object], known: Collection[str] | None, report: Report) -> None:
    """Report the elements of a list that are not `known` (None: that are empty), or that stand in it twice."""
    for i, name in enumerate(names):
        if known is None and name == "":
            report.add((*keys, i), f"{what} is empty")
        elif known is not None and str(name) not in known:
            report.add((*keys, i), unknown(what, str(name), known))
        elif name in names[:i]:
            report.add((*keys, i), f"{what} {json.dumps(name)} is listed twice")


def check_name(keys: Keys, what: str, name: str, report: Report) -> None:
    """Report a key of the user's own choice that no file name can hold."""
    if not re.fullmatch(NAME, name):
        report.add_key(keys, f"{what} name {name!r} must match {NAME} (it becomes part of file names)")


def check_file(keys: Keys, report: Report) -> None:
    """Report a path, if there is one, that does not lead to a file."""
    value = report.root.get(keys)
    if value is None:
        return
    path = report.root.path(keys)
    if kind(path) != "file":
        report.add(keys, no_file(path, str(value.data)))

"""Takes the options that a manifest gives to a plug-in, returns them as its dataclass reads them, or reports errors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields

from sam3_build.errors import BuildError
from sam3_build.manifest.problems import Report, unknown, wording
from sam3_build.manifest.rules import check_list
from sam3_build.manifest.yaml_tree import Keys
from sam3_build.spec import Json


def check_options(
    keys: Keys, owner: str, kind: type, given: Mapping[str, object], beside: Sequence[str], report: Report
) -> Mapping[str, Json] | None:
    """Return `given` as JSON, as the dataclass `kind` reads it, or None after reporting what is wrong.

    `keys` lead to the mapping that holds the options; `beside` are the keys in it that are none of the `owner`'s.
    """
    known = {f.name: f for f in fields(kind)}
    wrong = [key for key in given if key not in known]
    for key in wrong:
        report.add_key((*keys, key), unknown("key", key, [*beside, *known], f" of {owner}"))
    required = [f.name for f in known.values() if f.default is MISSING and f.default_factory is MISSING]
    for key in required:
        if key not in given:
            report.add((*keys, key), f"{owner} needs the key {key!r}")
    if wrong or set(required) - set(given):
        return None
    if not known:
        return {}
    from pydantic import TypeAdapter, ValidationError

    adapter: TypeAdapter[object] = TypeAdapter(kind)
    try:
        found = adapter.dump_python(adapter.validate_json(json.dumps(given), strict=True), mode="json")
    except ValidationError as e:
        for error in e.errors(include_url=False):
            report.add_broken((*keys, *error["loc"]), wording(error))
        return None
    except BuildError as e:
        report.add(keys, str(e))
        return None
    for key, value in given.items():
        if isinstance(value, Sequence) and not isinstance(value, str):
            check_list((*keys, key), "value", value, None, report)
    return {str(key): value for key, value in found.items()}

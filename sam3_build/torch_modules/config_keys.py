"""Finds keys of a model config that are misspelt: transformers ignores them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError
from sam3_build.spec import Json

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# From which likeness on (1: equal) a key is taken for another one.
ALIKE = 0.75


def refuse_misspelt(config: Mapping[str, Json], parsed: PreTrainedConfig) -> None:
    """Refuse a key that transformers does not know, next to a missing one that is spelt much like it.

    transformers ignores such a key and takes its default for the missing one. Unknown keys alone are no error: configs
    carry those of other versions.
    """
    misspelt = list(_misspelt(config, parsed, ""))
    if misspelt:
        raise BuildError("model config: transformers does not know " + ", nor ".join(misspelt))


def _misspelt(config: Mapping[str, Json], parsed: PreTrainedConfig, path: str) -> Iterator[str]:
    missing = {field.name for field in fields(parsed)} - set(config)
    for key, value in config.items():
        part = getattr(parsed, key, None)
        if isinstance(value, Mapping) and is_dataclass(part):
            yield from _misspelt(value, part, f"{path}{key}.")
        elif value is not None and not _known(key, parsed):
            for meant in get_close_matches(key, sorted(missing), n=1, cutoff=ALIKE):
                yield f"{path}{key}; did you mean {meant!r}?"


def _known(key: str, parsed: PreTrainedConfig) -> bool:
    """Say whether the class knows `key`: as a field, under another name of a field, or as a property or constant."""
    names = {field.name for field in fields(parsed)} | set(parsed.attribute_map)
    return key in names or hasattr(type(parsed), key)

"""Fills in a model config as transformers would, and finds what is wrong with it: also keys that are misspelt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from sam3_build.errors import BuildError
from sam3_build.spec import Json

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# From which likeness on (1: equal) a key is taken for another one.
ALIKE = 0.75


def complete(
    config: Mapping[str, Json],
    kind: str,
    whole: str,
    parse: Callable[[Mapping[str, Json]], PreTrainedConfig],
    *checks: Callable[[Mapping[str, Json]], object],
) -> dict[str, Json]:
    """Return the config with all that transformers would fill in, so that no default is relied on unseen.

    kind:   the `model_type` that it must have; whole: the class of the whole model
    checks: build the model, or sizes, of a complete config; what they raise is an error of the config
    BuildError when it is no config of such a model, and says which key is wrong.
    """
    if config.get("model_type") != kind:
        raise BuildError(f"model config: model_type should be {kind!r}, but is {config.get('model_type')!r}")
    try:
        parsed = parse(config)
        completed: dict[str, Json] = parsed.to_dict()
        refuse_misspelt(config, parsed)
        for check in checks:
            check(completed)
    except BuildError:
        raise
    except Exception as error:  # whatever transformers and torch raise for a type or a size that cannot be
        why = " ".join(str(error).split())
        bad = _bad_key(config, kind, lambda one: [check(parse(one).to_dict()) for check in checks])
        raise BuildError(f"model config: no {whole} can be made of {bad}: {type(error).__name__}: {why}") from error
    return completed


def _bad_key(config: Mapping[str, Json], kind: str, build: Callable[[Mapping[str, Json]], object]) -> str:
    """Return the key of the config that cannot be built also when all others have their defaults, else `it`."""
    for key, value in config.items():
        try:
            build({"model_type": kind, key: value})
        except Exception:
            return key
    return "it"


def refuse_unlike(config: Mapping[str, Json], expected: Mapping[str, Json]) -> None:
    """Refuse a complete config in which a value, by its path `part.key`, is not the expected one."""
    wrong = []
    for path, value in expected.items():
        actual: Json = config
        for key in path.split("."):
            actual = actual.get(key) if isinstance(actual, Mapping) else None
        if actual != value:
            wrong.append(f"{path} is {actual}, which should be {value}")
    if wrong:
        raise BuildError(f"model config: {', and '.join(wrong)}")


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

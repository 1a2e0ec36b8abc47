"""Takes the bytes of a YAML file, returns a tree of plain values, each with its line. Only it knows YAML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import yaml

from sam3_build import errors
from sam3_build.manifest.paths import expanded

Keys = errors.Keys
Plain = bool | int | float | str | list["Plain"] | dict[str, "Plain"] | None

LARGEST = 100_000
DEEPEST = 50
TOO_DEEP = f"nested more than {DEEPEST} levels deep"
# libyaml has a limit of its own since 0.2.6, which a long row of brackets meets before any node is composed.
_LIBYAML_TOO_DEEP = "exceeded maximum nesting depth"
NO_KEYS: Mapping[str, Place] = MappingProxyType({})
BOOLEANS = {"yes": True, "no": False, "true": True, "false": False, "on": True, "off": False}


# Named tuples, not dataclasses: making a dataclass takes a millisecond, and a no-op of doit has 200 of them in all.
class Place(NamedTuple):
    """A line of a file; lines count from 1, and 0 means the file as a whole."""

    file: Path
    line: int


class Problem(NamedTuple):
    """One thing that is wrong: where it stands, its path in the manifest, and what it is with what to do."""

    place: Place
    keys: Keys
    text: str


class Value(NamedTuple):
    """A scalar, a list or a mapping; `keys` holds the places of a mapping's keys."""

    data: bool | int | float | str | tuple[Value, ...] | dict[str, Value] | None
    place: Place
    keys: Mapping[str, Place] = NO_KEYS

    def get(self, keys: Keys) -> Value | None:
        """Return the value at `keys`, or None when there is none."""
        found = list(self._walk(keys))
        return found[-1][1] if len(found) == len(keys) + 1 else None

    def key_place(self, keys: Keys) -> Place:
        """Return where the key at `keys` stands, or the nearest thing around it that exists."""
        return list(self._walk(keys))[-1][0]

    def value_place(self, keys: Keys) -> Place:
        """Return where the scalar at `keys` was written (for an alias, its anchor); for a mapping or list, its key."""
        value = self.get(keys)
        scalar = value is not None and not isinstance(value.data, tuple | dict)
        return value.place if value is not None and scalar else self.key_place(keys)

    def path(self, keys: Keys) -> Path:
        """Return the path written at `keys`, relative to the folder of its file; a `~` at its beginning is a home."""
        value = self.get(keys)
        assert value is not None
        return value.place.file.parent / expanded(str(value.data))

    def plain(self) -> Plain:
        """Return the tree as plain lists, dicts and scalars."""
        if isinstance(self.data, dict):
            return {key: value.plain() for key, value in self.data.items()}
        return [value.plain() for value in self.data] if isinstance(self.data, tuple) else self.data

    def _walk(self, keys: Keys) -> Iterator[tuple[Place, Value]]:
        current = self
        yield current.place, current
        for key in keys:
            if isinstance(current.data, dict) and isinstance(key, str) and key in current.data:
                place, current = current.keys[key], current.data[key]
            elif isinstance(current.data, tuple) and isinstance(key, int) and key < len(current.data):
                current = current.data[key]
                place = current.place
            else:
                return
            yield place, current


def read_yaml(file: Path, data: bytes, problems: list[Problem]) -> Value | None:
    """Return the mapping in `data`, the bytes of `file`; what is wrong goes to `problems`.

    None: there is nothing to go on with.
    """
    return _Tree(file, problems).read(data)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The safe loader, which stops before deep nesting overflows the stack (in C: a crash)."""

    depth = 0

    def descend_resolver(self, node: yaml.Node | None, index: object) -> None:
        """Called by the composer as it enters a node that `node` holds."""
        self.depth += 1
        if self.depth > DEEPEST and node is not None:
            raise yaml.MarkedYAMLError(problem=TOO_DEEP, problem_mark=node.start_mark)

    def ascend_resolver(self) -> None:
        """Called by the composer as it leaves a node."""
        self.depth -= 1


class _Tree:
    """Turns one file into values; what is wrong goes to `problems`, with its line."""

    def __init__(self, file: Path, problems: list[Problem]) -> None:
        self.file = file
        self.problems = problems
        self.size = 0

    def read(self, data: bytes) -> Value | None:
        """Return the file's mapping, or None (with a problem noted) when there is none to go on with."""
        try:
            node = yaml.compose(data, Loader=_Loader)
        except yaml.MarkedYAMLError as e:
            mark = e.problem_mark or e.context_mark
            said = f"{e.problem} ({e.context})" if e.context else e.problem
            if e.problem == _LIBYAML_TOO_DEEP:
                said = TOO_DEEP
            self._stop(mark.line + 1 if mark else 0, f"not valid YAML: {said}")
        except yaml.reader.ReaderError as e:
            self._stop(data[: e.position].count(b"\n") + 1, f"not valid YAML text: {e.reason}; save it as UTF-8")
        else:
            return self._mapping_of(node)
        return None

    def _mapping_of(self, node: yaml.Node | None) -> Value | None:
        if node is None:
            self._stop(1, "is empty; a manifest is a mapping that starts with 'family:' or 'extends:'")
        elif isinstance((value := self._value(node, (), ())).data, dict):
            return value
        else:
            self._stop(value.place.line, "must be a mapping of keys to values, such as 'family: sam3_image'")
        return None

    def _stop(self, line: int, text: str) -> None:
        self.problems.append(Problem(Place(self.file, line), (), text))

    def _problem(self, node: yaml.Node, keys: Keys, text: str) -> None:
        self.problems.append(Problem(self._place(node), keys, text))

    def _place(self, node: yaml.Node) -> Place:
        return Place(self.file, node.start_mark.line + 1)

    def _value(self, node: yaml.Node, keys: Keys, inside: tuple[int, ...]) -> Value:
        """Return the value of a node; `inside` are the nodes around it. What an alias names is written out again."""
        self.size += 1
        wrong = None
        if id(node) in inside:
            wrong = "an alias (*) may not stand inside the value that its anchor (&) names"
        elif len(inside) > DEEPEST:
            wrong = f"is {TOO_DEEP}"
        elif self.size == LARGEST:
            wrong = f"its aliases write out to more than {LARGEST} values"
        if wrong:
            self._problem(node, keys, wrong)
        if wrong or self.size > LARGEST:
            return Value(None, self._place(node))
        inside = (*inside, id(node))
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._mapping(node, keys, inside)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            items = (self._value(child, (*keys, i), inside) for i, child in enumerate(node.value))
            return Value(tuple(items), self._place(node))
        return Value(self._scalar(node, keys), self._place(node))

    def _mapping(self, node: yaml.MappingNode, keys: Keys, inside: tuple[int, ...]) -> Value:
        own: dict[str, Value] = {}
        places: dict[str, Place] = {}
        merged: dict[str, Value] = {}
        merged_places: dict[str, Place] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, keys)
            if key is None:
                continue
            first = places.get(key)
            if first is not None:
                self._problem(key_node, (*keys, key), f"key {key!r} stands on line {first.line} already; keep one")
                continue
            places[key] = self._place(key_node)
            if key_node.tag != "tag:yaml.org,2002:merge":
                own[key] = self._value(value_node, (*keys, key), inside)
                continue
            for part_node in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                part = self._value(part_node, keys, inside)
                if not isinstance(part.data, dict):
                    self._problem(part_node, (*keys, key), "'<<' takes an alias of a mapping, or a list of these")
                    continue
                merged = {**merged, **{k: v for k, v in part.data.items() if k not in merged}}
                merged_places = {**part.keys, **merged_places}
        return Value({**merged, **own}, self._place(node), {**merged_places, **places})

    def _key(self, node: yaml.Node, keys: Keys) -> str | None:
        if node.tag in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
            return str(node.value)
        text = node.value if isinstance(node, yaml.ScalarNode) else "..."
        self._problem(node, keys, f"key {text!r} is not a string in YAML; put it in quotes")
        return None

    def _scalar(self, node: yaml.Node, keys: Keys) -> bool | int | float | str | None:
        kind, text = node.tag.removeprefix("tag:yaml.org,2002:"), str(node.value)
        if kind == "null":
            return None
        if kind == "bool" and text.lower() in BOOLEANS:
            return BOOLEANS[text.lower()]
        if kind == "int" and (integer := _integer(text)) is not None:
            return integer
        # 1e-3 is a string in YAML 1.1, and a number to everybody else.
        plain = (
            isinstance(node, yaml.ScalarNode) and not node.style and text[:1] in "+-.0123456789" and "e" in text.lower()
        )
        if (kind == "float" or (kind == "str" and plain)) and (decimal := _decimal(text)) is not None:
            return decimal
        if kind in ("str", "timestamp"):
            return text
        self._problem(
            node,
            keys,
            _no_number(text) if kind in ("int", "float") else f"tag {node.tag!r} is not allowed; leave it out",
        )
        return None


def _integer(text: str) -> int | None:
    """Return a plain decimal integer; YAML 1.1 has octal, hexadecimal and base 60 too, but nobody means these here."""
    digits = text.lstrip("+-")
    plain = digits.isascii() and digits.isdigit() and len(digits) < 19 and (digits[0] != "0" or digits == "0")
    return int(text) if plain else None


def _no_number(text: str) -> str:
    """Say why `text`, a number in YAML, is none here. Quotes help only what was not meant as a number."""
    digits = text.lstrip("+-")
    if digits.isascii() and digits.isdigit() and digits[0] != "0":
        return f"{text[:24] + '...' if len(text) > 24 else text!r} has {len(digits)} digits, an integer has at most 18"
    if digits.lower() in (".inf", ".nan") or _infinite(text):
        return f"{text!r} is not a finite number; write one in decimal digits"
    return f"{text!r} is not a plain decimal number; write decimal digits, or put it in quotes"


def _infinite(text: str) -> bool:
    try:
        return not isfinite(float(text))
    except ValueError:
        return False


def _decimal(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) else None

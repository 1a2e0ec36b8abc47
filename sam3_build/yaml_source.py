"""A YAML file in, one tree of values out, each with its file and line; alone reads YAML, and follows `extends`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import yaml

from sam3_build.errors import did_you_mean

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# A path into the tree: mapping keys and list positions.
Keys = tuple[str | int, ...]
Plain = bool | int | float | str | list["Plain"] | dict[str, "Plain"] | None

LARGEST_TREE = 100_000
DEEPEST_TREE = 50
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
        """Return the path written at `keys`, relative to the folder of the file that it was written in."""
        value = self.get(keys)
        assert value is not None
        return value.place.file.parent / str(value.data)

    def plain(self) -> Plain:
        """Return the tree as plain lists, dicts and scalars."""
        if isinstance(self.data, dict):
            return {key: value.plain() for key, value in self.data.items()}
        return [value.plain() for value in self.data] if isinstance(self.data, tuple) else self.data

    def _walk(self, keys: Keys) -> Iterator[tuple[Place, Value]]:
        here = self
        yield here.place, here
        for key in keys:
            if isinstance(here.data, dict) and isinstance(key, str) and key in here.data:
                place, here = here.keys[key], here.data[key]
            elif isinstance(here.data, tuple) and isinstance(key, int) and key < len(here.data):
                here = here.data[key]
                place = here.place
            else:
                return
            yield place, here


class Source(NamedTuple):
    """What was read: the merged tree (None when there is nothing to go on with), every file, and what is wrong."""

    root: Value | None
    files: tuple[Path, ...]
    problems: tuple[Problem, ...]


def read(file: Path) -> Source:
    """Read `file` and what it extends. Mappings merge, lists and scalars replace, null removes."""
    problems: list[Problem] = []
    files: list[Path] = []
    root = _read(file, (), files, problems)
    return Source(root, tuple(files), tuple(problems))


def shown(keys: Keys) -> str:
    """Return `("samples", 1, "boxes")` as `samples[1].boxes`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def missing_file(path: Path, pattern: str = "*") -> str:
    """Say that `path` does not exist, and which of its siblings (matching `pattern`) comes nearest."""
    if not path.parent.is_dir():
        return f"no such file {path.name!r}: its folder {str(path.parent)!r} does not exist"
    hint = did_you_mean(path.name, (p.name for p in path.parent.glob(pattern)))
    return f"no such file {path.name!r}{hint if len(hint) < 200 else ''}"


# ------------------------------------------------------------------ extends


def _read(file: Path, chain: tuple[Path, ...], files: list[Path], problems: list[Problem]) -> Value | None:
    files.append(file)
    tree = _Tree(file, problems).read()
    if tree is None or not isinstance(tree.data, dict) or "extends" not in tree.data:
        return tree
    extends, place = tree.data["extends"], tree.keys["extends"]
    over = Value({k: v for k, v in tree.data.items() if k != "extends"}, tree.place, tree.keys)
    chain = (*chain, file.resolve())
    if not isinstance(extends.data, str) or not extends.data:
        problems.append(Problem(place, ("extends",), "must be the path of another manifest, relative to this file"))
        return None
    base_file = file.parent / extends.data
    if base_file.resolve() in chain:
        circle = [*chain[chain.index(base_file.resolve()) :], base_file.resolve()]
        names = " -> ".join(p.name for p in circle)
        problems.append(Problem(extends.place, ("extends",), f"a manifest cannot extend itself: {names}"))
        return None
    if not base_file.is_file():
        problems.append(Problem(extends.place, ("extends",), missing_file(base_file, "*.y*ml")))
        return None
    base = _read(base_file, chain, files, problems)
    return None if base is None else _merge(base, over, (), problems)


def _merge(base: Value, over: Value, keys: Keys, problems: list[Problem]) -> Value:
    if not isinstance(base.data, dict) or not isinstance(over.data, dict):
        return over
    data, places = dict(base.data), dict(base.keys)
    for key, value in over.data.items():
        if value.data is None:
            if data.pop(key, None) is None:
                problems.append(Problem(over.keys[key], (*keys, key), _nothing_to_remove(key, base.data)))
            continue
        data[key] = _merge(data[key], value, (*keys, key), problems) if key in data else value
        places[key] = over.keys[key]
    return Value(data, over.place, places)


def _nothing_to_remove(key: str, known: Mapping[str, Value]) -> str:
    return f"null removes a key of the extended manifest, which has no {key!r} here{did_you_mean(key, known)}"


# ------------------------------------------------------------------ one file


class _Tree:
    """Turns one file into values; what is wrong goes to `problems`, with its line."""

    def __init__(self, file: Path, problems: list[Problem]) -> None:
        self.file = file
        self.problems = problems
        self.done: dict[int, tuple[Value, int]] = {}

    def read(self) -> Value | None:
        """Return the file's mapping, or None (with a problem noted) when there is none to go on with."""
        data = b""
        try:
            data = self.file.read_bytes()
            node = yaml.compose(data, Loader=Loader)
        except OSError as e:
            self._stop(0, f"cannot be read: {e.strerror}")
        except yaml.MarkedYAMLError as e:
            mark = e.problem_mark or e.context_mark
            context = f" ({e.context})" if e.context else ""
            self._stop(mark.line + 1 if mark else 0, f"not valid YAML: {e.problem}{context}")
        except yaml.reader.ReaderError as e:
            self._stop(data[: e.position].count(b"\n") + 1, f"not valid YAML text: {e.reason}; save it as UTF-8")
        except RecursionError:
            self._stop(0, "is nested too deeply")
        else:
            return self._mapping_of(node)
        return None

    def _mapping_of(self, node: yaml.Node | None) -> Value | None:
        if node is None:
            self._stop(1, "is empty; a manifest is a mapping that starts with 'family:' or 'extends:'")
        elif isinstance((value := self._value(node, (), ())[0]).data, dict):
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

    def _value(self, node: yaml.Node, keys: Keys, inside: tuple[int, ...]) -> tuple[Value, int]:
        """Return the value and how many values it is made of, aliases written out."""
        if id(node) in inside:
            self._problem(node, keys, "an alias (*) may not stand inside the value that its anchor (&) names")
            return Value(None, self._place(node)), 1
        if len(inside) > DEEPEST_TREE:
            self._problem(node, keys, f"is nested more than {DEEPEST_TREE} levels deep")
            return Value(None, self._place(node)), 1
        if id(node) not in self.done:
            inside = (*inside, id(node))
            if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
                value, size = self._mapping(node, keys, inside)
            elif isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
                items = [self._value(child, (*keys, i), inside) for i, child in enumerate(node.value)]
                value = Value(tuple(v for v, _ in items), self._place(node))
                size = 1 + sum(n for _, n in items)
            else:
                value, size = Value(self._scalar(node, keys), self._place(node)), 1
            if size > LARGEST_TREE:
                self._problem(node, keys, f"its aliases write out to more than {LARGEST_TREE} values")
                value, size = Value(None, self._place(node)), 1
            self.done[id(node)] = value, size
        return self.done[id(node)]

    def _mapping(self, node: yaml.MappingNode, keys: Keys, inside: tuple[int, ...]) -> tuple[Value, int]:
        own: dict[str, Value] = {}
        places: dict[str, Place] = {}
        merged: dict[str, Value] = {}
        merged_places: dict[str, Place] = {}
        size = 1
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
                own[key], n = self._value(value_node, (*keys, key), inside)
                size += n
                continue
            for part_node in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                part, n = self._value(part_node, keys, inside)
                size += n
                if not isinstance(part.data, dict):
                    self._problem(part_node, (*keys, key), "'<<' takes an alias of a mapping, or a list of these")
                    continue
                merged = {**merged, **{k: v for k, v in part.data.items() if k not in merged}}
                merged_places = {**part.keys, **merged_places}
        return Value({**merged, **own}, self._place(node), {**merged_places, **places}), size

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
        plain = isinstance(node, yaml.ScalarNode) and node.style is None and text[:1] in "+-.0123456789"
        if (kind == "float" or (kind == "str" and plain)) and (decimal := _decimal(text)) is not None:
            return decimal
        if kind in ("str", "timestamp"):
            return text
        number = f"{text!r} is not a plain decimal number; write decimal digits, or put it in quotes"
        self._problem(
            node, keys, number if kind in ("int", "float") else f"tag {node.tag!r} is not allowed; leave it out"
        )
        return None


def _integer(text: str) -> int | None:
    """Return a plain decimal integer; YAML 1.1 has octal, hexadecimal and base 60 too, but nobody means these here."""
    digits = text.lstrip("+-")
    plain = digits.isascii() and digits.isdigit() and len(digits) < 19 and (digits[0] != "0" or digits == "0")
    return int(text) if plain else None


def _decimal(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) else None

"""Typed values and the JSON documents that they are written as: the parameters of actions, in plans and in workers.

A key holds the document, and `explain` compares documents. A field that has its default value is left out, so that a
parameter that is added with a default changes no key.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache
from inspect import get_annotations
from types import NoneType, UnionType
from typing import (
    ClassVar,
    NoReturn,
    Self,
    TypeVar,
    Union,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from sam3_build.errors import BuildError

# What a canonical JSON document is made of. Floats must be finite.
Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]

Value = TypeVar("Value")

# Stands for the default of a field that has none.
_REQUIRED = object()


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Params:
    """The parameters of a stage: to whoever uses them a frozen dataclass, made by keyword.

    `dataclasses` compiles methods for every class, which takes about a millisecond each in every start of doit. These
    methods serve all.
    """

    _fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        """Take in the fields that the class adds to those of its base."""
        cls._fields = tuple(dict.fromkeys((*cls._fields, *get_annotations(cls))))

    def __init__(self, **values: object) -> None:
        """TypeError for a field that is missing or that there is not."""
        _require(type(self).__name__, self._defaults(), values, TypeError)
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        """Refuse: parameters are frozen."""
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def __eq__(self, other: object) -> bool:
        """Tell whether both are of one class and written as the same document."""
        return isinstance(other, type(self)) and self.document() == other.document()

    __hash__ = None  # type: ignore[assignment]  # values may be mappings

    def __repr__(self) -> str:
        """Return the class and all fields."""
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self._fields)})"

    @classmethod
    def _defaults(cls) -> dict[str, object]:
        return {name: getattr(cls, name, _REQUIRED) for name in cls._fields}

    def document(self) -> dict[str, Json]:
        """Return the JSON document, fields in their order."""
        return _document(self, self._defaults())

    @classmethod
    def of(cls, document: Mapping[str, Json]) -> Self:
        """Return what was written as `document`; BuildError where it does not fit, and what does not."""
        return cls(**_values(cls, cls._defaults(), document))


def document_of(value: object) -> dict[str, Json]:
    """Return a dataclass as the JSON document that a parameter of it is written as."""
    kind: type = type(value)
    return _document(value, _dataclass_defaults(kind))


def value_of(kind: type[Value], document: Mapping[str, Json]) -> Value:
    """Return the dataclass that was written as `document`; BuildError where it does not fit, and what does not."""
    plain: type = kind
    return kind(**_values(plain, _dataclass_defaults(plain), document))


def _document(value: object, defaults: Mapping[str, object]) -> dict[str, Json]:
    given = {name: getattr(value, name) for name in defaults}
    return {name: _encoded(found) for name, found in given.items() if found != defaults[name]}


def _encoded(value: object) -> Json:
    if isinstance(value, Params):
        return value.document()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _document(value, _dataclass_defaults(type(value)))
    if isinstance(value, Mapping):
        return {str(key): _encoded(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_encoded(item) for item in value]
    return cast(Json, value)


def _values(kind: type, defaults: Mapping[str, object], document: Mapping[str, Json]) -> dict[str, object]:
    """Return the fields of a class that `document` gives, decoded."""
    _require(kind.__name__, defaults, document, BuildError)
    types = _types(kind)
    return {name: _decoded(types[name], value, f"{kind.__name__}.{name}") for name, value in document.items()}


def _decoded(kind: object, document: Json, where: str) -> object:
    """Return `document` as a value of the type `kind`; what may be any JSON, or one of several types, is as it is."""
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(document, Mapping):
        if isinstance(kind, type) and issubclass(kind, Params):
            return kind.of(document)
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            return kind(**_values(kind, _dataclass_defaults(kind), document))
        if origin is Mapping:
            return {key: _decoded(arguments[1], item, f"{where}.{key}") for key, item in document.items()}
    elif isinstance(document, Sequence) and not isinstance(document, str) and origin is tuple:
        kinds = [arguments[0]] * len(document) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(document):
            return tuple(_decoded(*pair, f"{where}.{i}") for i, pair in enumerate(zip(kinds, document, strict=True)))
    if origin in (Union, UnionType):
        others = [argument for argument in arguments if argument is not NoneType]
        is_none = document is None and len(others) < len(arguments)
        return document if is_none or len(others) > 1 else _decoded(others[0], document, where)
    if type(document) is kind or (kind is float and type(document) is int):
        return document
    raise BuildError(f"parameter {where} must be {kind.__name__ if type(kind) is type else kind}, not {document!r}")


def _require(
    name: str, defaults: Mapping[str, object], given: Mapping[str, object], error: type[TypeError | BuildError]
) -> None:
    """Raise `error` for a field that is missing, or one that there is not."""
    if missing := [field for field, default in defaults.items() if default is _REQUIRED and field not in given]:
        raise error(f"{name} lacks {', '.join(missing)}")
    if unknown := sorted(given.keys() - defaults.keys()):
        raise error(f"{name} has no {', '.join(unknown)}, only {', '.join(defaults)}")


@cache
def _types(kind: type) -> Mapping[str, object]:
    return get_type_hints(kind)


@cache
def _dataclass_defaults(kind: type) -> Mapping[str, object]:
    fields = dataclasses.fields(kind)
    return {f.name: _REQUIRED if f.default is dataclasses.MISSING else f.default for f in fields}

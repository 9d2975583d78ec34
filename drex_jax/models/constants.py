"""The options of a model as JSON. A finished run keeps them, so that its model can answer without the data.

A model is a frozen dataclass of numbers, strings, tuples and further dataclasses. Fields marked with `unrecorded` say
only how it is trained or computed; they are left out, and have their defaults in a finished run.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from drex_jax.common.errors import UserError

LARGEST = 1 << 31  # the largest size accepted: a damaged file must not fill the memory
T = TypeVar("T")


def unrecorded(default: Any) -> Any:
    """Declare a field of a model's options that a finished run does not keep."""
    return dataclasses.field(default=default, metadata={"recorded": False})


def to_json(options: Any) -> Any:
    """Return the recorded fields of a dataclass as nested dictionaries."""
    if not dataclasses.is_dataclass(options):
        return list(options) if isinstance(options, tuple) else options
    return {field.name: to_json(getattr(options, field.name)) for field in _recorded(options)}


def from_json(kind: type[T], values: Any) -> T:
    """Return the dataclass from the result of `to_json`.

    Raises:
      UserError: a field is missing, unknown, of a wrong type or too large.
    """
    try:
        return _read(kind, values, kind.__name__)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"the record of the run's model is damaged: {error}; train the run again") from None


def _recorded(kind: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(kind) if field.metadata.get("recorded", True)]


def _read(kind: Any, value: Any, name: str) -> Any:
    if isinstance(kind, types.UnionType):  # an optional field
        (kind,) = (each for each in typing.get_args(kind) if each is not types.NoneType)
        return None if value is None else _read(kind, value, name)
    if dataclasses.is_dataclass(kind):
        hints, fields = typing.get_type_hints(kind), [field.name for field in _recorded(kind)]
        if not isinstance(value, Mapping) or sorted(value) != sorted(fields):
            raise ValueError(f"{name} should have the fields {' '.join(fields)}")
        return kind(**{field: _read(hints[field], value[field], field) for field in fields})  # pyright: ignore[reportCallIssue]
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise TypeError(f"{name} is {value!r}")
        return tuple(_read(typing.get_args(kind)[0], each, name) for each in value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise TypeError(f"{name} is {value!r}")
    if kind is int and not 0 <= value < LARGEST:
        raise ValueError(f"{name} is {value!r}")
    return value

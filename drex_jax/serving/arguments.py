"""What a finished run is asked, checked before it is answered: ids, lists, lengths, moments."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping, Set
from typing import Any

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.serving.rows import id_of, seconds, shown


def listed(name: str, values: Any) -> list[Any]:
    """The values of a list, of anything else that has an order, or of a generator.

    Raises:
      UserError: `values`, which are called `name`, are none: a string, say, which would be taken apart.
    """
    alone = isinstance(values, str | bytes | bytearray | Mapping | Set) or not isinstance(values, Iterable)
    if alone or (isinstance(values, np.ndarray) and values.ndim != 1):
        raise UserError(f"{name} must be a list, not {type(values).__name__} {shown(values)}")
    return list(values)


def is_list(value: Any) -> bool:
    """Whether more than one is asked about: of anything but a list, `id_of` says what is wrong."""
    return not isinstance(value, str | bytes | bytearray | numbers.Number) and value is not None


def ids_of(name: str, values: Any) -> list[str]:
    """Ids as they are kept; raises as `listed` and `drex_jax.serving.rows.id_of`."""
    return [id_of(name, value) for value in listed(name, values)]


def length(k: Any, most: int, things: str) -> int:
    """The length of a list.

    Raises:
      UserError: it is no whole number, below 1, or more than the number of things there are.
    """
    if not isinstance(k, int | np.integer):
        raise UserError(f"k = {shown(k)}; it must be a whole number, from 1 to the {most:,} {things} there are")
    if not 1 <= k <= most:
        raise UserError(f"k = {shown(k)}; it must be from 1 to the {most:,} {things} there are")
    return int(k)


def moment(value: Any) -> float:
    """A moment in seconds since 1970; it may be infinite.

    Raises:
      UserError: it is none.
    """
    if isinstance(value, float) and math.isinf(value):
        return value
    return seconds("moment", value)

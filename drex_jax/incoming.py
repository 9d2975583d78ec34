"""Interactions that arrive after training, as Python objects: each row checked by itself, refused with a reason."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from drex_jax.data.interactions import MAX_TIMESTAMP, MIN_TIMESTAMP, Interactions
from drex_jax.data.modalities import REVIEW
from drex_jax.errors import UserError

COLUMNS = ("user", "item", "rating", "timestamp", "text")


class Row(NamedTuple):
    """One interaction, checked.

    Attributes:
      user, item: ids.
      timestamp: seconds since 1970.
      rating: NaN where missing.
      text: empty where missing.
      vectors: by name float32 [width]; what is missing is left out.
    """

    user: str
    item: str
    timestamp: float
    rating: float
    text: str
    vectors: Mapping[str, np.ndarray]


class Refusal(NamedTuple):
    """A row that was not applied: its place in what was given, from 0, and why."""

    row: int
    reason: str


@dataclasses.dataclass(frozen=True)
class Expected:
    """What a run's interactions look like.

    Attributes:
      rating_range: the scale; None: the data have no ratings.
      widths: of the vector modalities, by name, but for what is made of the text.
    """

    rating_range: tuple[float, float] | None
    widths: Mapping[str, int]

    @classmethod
    def by(cls, interactions: Interactions) -> Expected:
        """What these interactions look like."""
        widths = {name: values.shape[1] for name, values in interactions.vectors.items() if name != REVIEW}
        return cls(interactions.rating_range, widths)

    def check(self, row: Any) -> Row:
        """A mapping as a `Row`. Keys are `COLUMNS` and names of vectors; a missing key or None is a missing value.

        Raises:
          UserError: what is wrong with it.
        """
        if not isinstance(row, Mapping):
            raise UserError(f"a row must be a mapping with user, item and timestamp, not {type(row).__name__}")
        unknown = next((key for key in row if key not in COLUMNS and key not in self.widths), None)
        if unknown is not None:
            raise UserError(f"unknown key {unknown!r}; it should be one of {' '.join((*COLUMNS, *self.widths))}")
        vectors = {name: row[name] for name in self.widths if row.get(name) is not None}
        return Row(
            _id("user", row.get("user")),
            _id("item", row.get("item")),
            _timestamp(row.get("timestamp")),
            self._rating(row.get("rating")),
            _text(row.get("text")),
            {name: _vector(name, values, self.widths[name]) for name, values in vectors.items()},
        )

    def _rating(self, value: Any) -> float:
        if value is None:
            return math.nan
        rating = _number("rating", value)
        if math.isnan(rating):
            return rating
        if self.rating_range is None:
            raise UserError(f"rating {value!r}: the run's data have no ratings")
        low, high = (float(np.float32(bound)) for bound in self.rating_range)
        if not low <= float(np.float32(rating)) <= high:
            raise UserError(f"rating {value!r} is outside the scale, {low:g} to {high:g}")
        return rating


def rows_of(interactions: Interactions) -> Iterator[dict[str, Any]]:
    """A table's rows as mappings."""
    users, items, names = interactions.user_ids, interactions.item_ids, list(interactions.vectors)
    for row in range(len(interactions)):
        vectors = {name: interactions.vectors[name][row] for name in names}
        yield {
            "user": users[interactions.user[row]],
            "item": items[interactions.item[row]],
            "timestamp": float(interactions.timestamp[row]),
            "rating": float(interactions.rating[row]),
            "text": interactions.text[row],
            **{name: vector for name, vector in vectors.items() if not np.isnan(vector).any()},
        }


def checked(rows: Iterable[Any], expected: Expected) -> tuple[list[tuple[int, Row]], list[Refusal]]:
    """The rows that are right, each with its place, and those that are not."""
    right, refused = [], []
    for place, row in enumerate(rows):
        try:
            right.append((place, expected.check(row)))
        except UserError as error:
            refused.append(Refusal(place, str(error)))
    return right, refused


def _id(side: str, value: Any) -> str:
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return str(int(value))
    if not isinstance(value, str) or not value:
        raise UserError(f"{side} {value!r}; it must be a string that is not empty, or a whole number")
    return _utf8(side, value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"text is {type(value).__name__}; it must be a string")
    return _utf8("text", value)


def _utf8(name: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f"{name} holds a lone surrogate, which is no text") from None
    return value


def _timestamp(value: Any) -> float:
    if value is None:
        raise UserError("no timestamp; it must be seconds since 1970")
    seconds = _number("timestamp", value)
    if not MIN_TIMESTAMP <= seconds <= MAX_TIMESTAMP:
        raise UserError(f"timestamp {value!r} is outside the years 1900 to 2200, in seconds since 1970")
    return seconds


def _number(name: str, value: Any) -> float:
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        number = float(value)
        if not math.isinf(number):
            return number
    raise UserError(f"{name} {value!r} is no finite number")


def _vector(name: str, values: Sequence[float], width: int) -> np.ndarray:
    try:
        vector = np.asarray(values, np.float32)
    except (TypeError, ValueError):
        raise UserError(f"{name} is no list of numbers") from None
    if vector.shape != (width,) or not np.isfinite(vector).all():
        raise UserError(f"{name} must be {width} finite numbers")
    return vector

"""Interactions that arrive after training, as Python objects: each row checked by itself, refused with a reason."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import math
import numbers
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.data.events import REVIEW
from drex_jax.data.interactions import MAX_TIMESTAMP, MIN_TIMESTAMP, Interactions

COLUMNS = ("user", "item", "rating", "timestamp", "text")
SHOWN = 80  # characters of a value in a message


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
        """A mapping as a `Row`. Keys are `COLUMNS` and names of vectors; a missing key, None or NaN is a missing value.

        Raises:
          UserError: what is wrong with it.
        """
        if not isinstance(row, Mapping):
            raise UserError(f"a row must be a mapping with user, item and timestamp, not {type(row).__name__}")
        unknown = next((key for key in row if key not in COLUMNS and key not in self.widths), None)
        if unknown is not None:
            raise UserError(f"unknown key {shown(unknown)}; it should be one of {' '.join((*COLUMNS, *self.widths))}")
        vectors = {name: row[name] for name in self.widths if not _missing(row.get(name))}
        return Row(
            _id("user", row.get("user")),
            _id("item", row.get("item")),
            _timestamp(row.get("timestamp")),
            self._rating(row.get("rating")),
            _text(row.get("text")),
            {name: _vector(name, values, self.widths[name]) for name, values in vectors.items()},
        )

    def _rating(self, value: Any) -> float:
        if _missing(value):
            return math.nan
        rating = _number("rating", value)
        if self.rating_range is None:
            raise UserError(f"rating {shown(value)}: the run's data have no ratings")
        low, high = (float(np.float32(bound)) for bound in self.rating_range)
        if not low <= float(np.float32(rating)) <= high:
            raise UserError(f"rating {shown(value)} is outside the scale, {low:g} to {high:g}")
        return rating


def require_whole(interactions: Interactions) -> None:
    """Makes sure that every row of a table, or of a part of one, has its user, its item and a place in all columns.

    Raises:
      UserError: a column is longer than another, or a number has no id.
    """
    columns = {name: getattr(interactions, name) for name in ("user", "item", "timestamp", "rating", "text")}
    columns |= interactions.vectors
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{length:,} of {name}" for name, length in lengths.items())
        raise UserError(f"the table's columns must be of one length, and there are {found}")
    for side, ids in (("user", interactions.user_ids), ("item", interactions.item_ids)):
        places = columns[side]
        if len(places) and not 0 <= places.min() <= places.max() < len(ids):
            raise UserError(
                f"the table's {side} numbers are {places.min():,} to {places.max():,}, and it has {len(ids):,} "
                f"{side} ids; they must be from 0 to below that"
            )


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


def shown(value: Any) -> str:
    """What a message says of a value: as Python spells it, cut to 80 characters."""
    try:
        spelt = repr(value)
    except ValueError:
        return "<a number of thousands of digits>"
    return spelt if len(spelt) <= SHOWN else f"{spelt[: SHOWN - 1]}…"


def id_of(name: str, value: Any) -> str:
    """An id as it is kept: a string, or the digits of a whole number.

    Raises:
      UserError: `value`, which is called `name`, is neither.
    """
    if isinstance(value, str):
        return str(value)
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):  # Python spells no number of more digits
            return str(int(value))
    raise UserError(f"{name} {shown(value)}; it must be a string, or a whole number of at most 4,300 digits")


def seconds(name: str, value: Any) -> float:
    """Seconds since 1970, of a number of them or a `datetime`, which is in UTC where it names no zone.

    Raises:
      UserError: `value`, which is called `name`, is neither.
    """
    if isinstance(value, datetime.datetime):
        zoned = value if value.tzinfo is not None else value.replace(tzinfo=datetime.UTC)
        value = zoned.timestamp()
    number = _number(name, value, "; it must be seconds since 1970 or a datetime")
    if math.isnan(number):
        raise UserError(f"{name} {shown(value)} is no moment; it must be seconds since 1970 or a datetime")
    return number


def _missing(value: Any) -> bool:
    """None, or the NaN that tables have for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _id(side: str, value: Any) -> str:
    name = id_of(side, value)
    if not name:
        raise UserError(f"{side} ''; it must be a string that is not empty, or a whole number")
    return _utf8(side, name)


def _text(value: Any) -> str:
    if _missing(value):
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
    if _missing(value):
        raise UserError("no timestamp; it must be seconds since 1970 or a datetime")
    moment = seconds("timestamp", value)
    if not MIN_TIMESTAMP <= moment <= MAX_TIMESTAMP:
        raise UserError(f"timestamp {shown(value)} is outside the years 1900 to 2200, in seconds since 1970")
    return moment


def _number(name: str, value: Any, wanted: str = "") -> float:
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # of a whole number beyond all floats
            number = float(value)
            if not math.isinf(number):
                return number
    raise UserError(f"{name} {shown(value)} is no finite number{wanted}")


def _vector(name: str, values: Sequence[float], width: int) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):
            vector = np.asarray(values, np.float32)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{name} is no list of numbers") from None
    if vector.shape != (width,) or not np.isfinite(vector).all():
        raise UserError(f"{name} must be {width} finite numbers")
    return vector

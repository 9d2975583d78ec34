"""Checks of what a Python program gives: new interactions, and the arguments of questions.

New interactions, as mappings or as a table, become the columns of a `Chunk`. Every value passes the rules of
`drex_jax.data.readers.fields`, which the readers of files use too; a row that breaks one is refused with the reason.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple, cast

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.common.side import Side
from drex_jax.common.spelling import shown
from drex_jax.data.events import REVIEW
from drex_jax.data.interactions import Interactions
from drex_jax.data.readers import fields
from drex_jax.data.readers.chunk import Chunk, Row
from drex_jax.data.strings import Strings

COLUMNS = ("user", "item", "rating", "timestamp", "text")


class Refusal(NamedTuple):
    """A row that was not applied.

    Attributes:
      row: position of the row in what was given, from 0.
      reason: why, in one line.
    """

    row: int
    reason: str


class CheckedRows(NamedTuple):
    """New interactions after the checks of their values.

    Attributes:
      rows: the n good rows, in the order in which they were given.
      positions: int64 [n], their positions in what was given.
      refused: the other rows.
    """

    rows: Chunk
    positions: np.ndarray
    refused: list[Refusal]

    def refuse(self, wrong: np.ndarray, reason: str) -> CheckedRows:
        """Refuse the good rows where `wrong` (bool [n]) is true, all for one reason."""
        more = [Refusal(position, reason) for position in self.positions[wrong].tolist()]
        return CheckedRows(self.rows.take(np.flatnonzero(~wrong)), self.positions[~wrong], [*self.refused, *more])


@dataclasses.dataclass(frozen=True)
class RowSchema:
    """The columns that new interactions of a run may have.

    Attributes:
      rating_range: the lowest and the highest rating; None if the data have no ratings.
      widths: the width of each vector modality, by name; without the vector that an encoder makes of the text.
    """

    rating_range: tuple[float, float] | None
    widths: Mapping[str, int]

    @classmethod
    def of(cls, interactions: Interactions) -> RowSchema:
        """Return the schema of a run whose data are `interactions`."""
        widths = {name: values.shape[1] for name, values in interactions.vectors.items() if name != REVIEW}
        return cls(interactions.rating_range, widths)

    def require_key(self, key: object) -> None:
        """Raise `BadField` if a row may not have `key`."""
        if key not in COLUMNS and key not in self.widths:
            known = " ".join((*COLUMNS, *self.widths))
            raise fields.BadField(f"unknown key {shown(key)}; it should be one of {known}")

    def rating(self, value: object) -> float:
        """Return a rating; NaN if it is missing."""
        low, high = self.rating_range or (-math.inf, math.inf)
        rating = fields.rating(value, low, high)
        if self.rating_range is None and not math.isnan(rating):
            raise fields.BadField("the run's data have no ratings, so a row may have none", value)
        return rating

    def vector(self, name: str, value: object) -> np.ndarray | None:
        """Return the vector called `name`, float32 [width]; None if it is missing."""
        try:
            return fields.vector(_plain_list(value), self.widths[name])
        except fields.BadField as bad:
            raise fields.BadField(f"{name}: {bad.reason}", bad.value) from None


def check_mappings(rows: Iterable[object], schema: RowSchema) -> CheckedRows:
    """Check mappings with the keys `COLUMNS` and the names of vectors; missing values may be absent, None or NaN."""
    good, positions, refused = list[Row](), list[int](), list[Refusal]()
    for position, row in enumerate(rows):
        try:
            good.append(_checked(row, schema))
            positions.append(position)
        except fields.BadField as bad:
            refused.append(Refusal(position, _reason(bad)))
    return CheckedRows(Chunk.of(good, tuple(schema.widths)), np.array(positions, np.int64), refused)


def _checked(row: object, schema: RowSchema) -> Row:
    """Return a mapping as a checked row. Raises `BadField`."""
    if not isinstance(row, Mapping):
        wanted = "a row must be a mapping with user, item and timestamp"
        raise fields.BadField(f"{wanted}, not {type(row).__name__}")
    given = cast(Mapping[object, object], row)
    for key in given:
        schema.require_key(key)
    return Row(
        user=fields.identifier(plain(given.get("user")), Side.USER),
        item=fields.identifier(plain(given.get("item")), Side.ITEM),
        timestamp=_time(given.get("timestamp")),
        rating=schema.rating(plain(given.get("rating"))),
        text=fields.review(plain(given.get("text"))),
        vectors=tuple(schema.vector(name, given.get(name)) for name in schema.widths),
    )


def check_table(table: Interactions, schema: RowSchema) -> CheckedRows:
    """Check a table, or a part of one, column by column.

    Raises:
      UserError: the columns differ in length, or the number of a user or an item has no id.
    """
    _require_whole(table)
    texts: list[bytes] = [b""] * len(table)
    reasons: dict[int, str] = {}

    def check(rule: Callable[[int], object], rows: Iterable[int] = range(len(table))) -> None:
        for row in rows:
            try:
                rule(row)
            except fields.BadField as bad:
                reasons.setdefault(row, _reason(bad))

    def check_text(row: int) -> None:
        texts[row] = fields.review(_decoded(table.text, row))

    present = {name: np.flatnonzero(~np.isnan(values).any(1)) for name, values in table.vectors.items()}
    for name in (name for name in table.vectors if name not in schema.widths):
        check(lambda _, name=name: schema.require_key(name), present[name].tolist())
    check(lambda row: fields.identifier(_decoded(table.user_ids, int(table.user[row])), Side.USER))
    check(lambda row: fields.identifier(_decoded(table.item_ids, int(table.item[row])), Side.ITEM))
    check(lambda row: _time(float(table.timestamp[row])))
    check(lambda row: schema.rating(plain(float(table.rating[row]))))
    check(check_text)
    for name in (name for name in schema.widths if name in table.vectors):
        check(lambda row, name=name: schema.vector(name, table.vectors[name][row]), present[name].tolist())
    good: np.ndarray = np.setdiff1d(np.arange(len(table)), list(reasons))
    rows = Chunk(
        user=table.user_ids.take(table.user[good]),
        item=table.item_ids.take(table.item[good]),
        timestamp=table.timestamp[good].astype(np.float64),
        rating=table.rating[good].astype(np.float32),
        text=Strings.of([texts[int(row)] for row in good]),
        vectors={
            name: np.where(np.isin(good, present[name])[:, None], table.vectors[name][good], np.nan).astype(np.float32)
            for name, width in schema.widths.items()
            if name in table.vectors and table.vectors[name].shape[1] == width
        },
    )
    return CheckedRows(rows, good, [Refusal(row, reasons[row]) for row in sorted(reasons)])


def _require_whole(table: Interactions) -> None:
    columns = {name: getattr(table, name) for name in COLUMNS} | table.vectors
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{length:,} of {name}" for name, length in lengths.items())
        raise UserError(f"the table's columns must be of one length, and there are {found}")
    for side, given, ids in ((Side.USER, table.user, table.user_ids), (Side.ITEM, table.item, table.item_ids)):
        if len(given) and not 0 <= given.min() <= given.max() < len(ids):
            raise UserError(
                f"the table's {side} numbers are {given.min():,} to {given.max():,}, and it has {len(ids):,} "
                f"{side} ids; they must be from 0 to below that"
            )


def _decoded(strings: Strings, row: int) -> str:
    """Return a string as readers have it: bytes that are not UTF-8 become lone surrogates, which `fields` rejects."""
    return strings.bytes_at(row).decode("utf-8", "surrogateescape")


def _time(value: object) -> float:
    return fields.seconds(fields.seconds_of(value) if isinstance(value, datetime.datetime) else plain(value))


def _reason(bad: fields.BadField) -> str:
    return bad.reason if bad.value is None else f"{bad.reason}: {shown(bad.value)}"


def plain(value: object) -> object:
    """Return a value as a reader of JSON would: None for NaN, a number or string of NumPy as Python's.

    Values that are neither numbers nor strings stay as they are.
    """
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        with contextlib.suppress(OverflowError):  # a fraction beyond all floats
            return None if math.isnan(value) else float(value)
    return value


def _plain_list(value: object) -> object:
    """Return a sequence or an array of numbers as a list of Python's; anything else as `plain` does."""
    if hasattr(value, "__array__"):
        return plain(value) if np.ndim(cast(Any, value)) == 0 else np.asarray(value).tolist()
    if isinstance(value, str | bytes | bytearray) or not isinstance(value, Sequence):
        return plain(value)
    listed = cast(Sequence[Any], value)
    return [number.item() if issubclass(type(number), np.number) else number for number in listed]


# Arguments of questions


def as_list(name: str, values: object) -> list[Any]:
    """Return the values of a list, of another ordered collection or of an iterator.

    Args:
      name: name of the argument, for the message.
      values: the argument.

    Raises:
      UserError: `values` is not a list, but a single string (which would be taken apart), a mapping or a set, say.
    """
    if not _is_collection(values) or getattr(values, "ndim", 1) != 1:
        raise UserError(f"{name} must be a list, not {type(values).__name__} {shown(values)}")
    return list(cast(Iterable[Any], values))


def _is_collection(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | bytearray | Mapping | Set)


def is_list(value: object) -> bool:
    """True if a question is about several ids; False if `value` looks like one id (which `id_of` then checks)."""
    return not isinstance(value, str | bytes | bytearray | numbers.Number) and value is not None


def id_of(name: str, value: object) -> str:
    """Return the id that a question is about, which the run need not know.

    Args:
      name: name of the argument, for the message.
      value: a string, or an integer, which stands for its digits.

    Raises:
      UserError: `value` is neither.
    """
    found = plain(value)
    if isinstance(found, str):
        return found
    if type(found) is int:
        with contextlib.suppress(ValueError):  # Python does not spell longer integers
            return str(found)
    raise UserError(f"{name} {shown(value)}; it must be a string, or a whole number of at most 4,300 digits")


def ids_of(name: str, values: object) -> list[str]:
    """Return the ids of a list. Raises as `as_list` and `id_of` do."""
    return [id_of(name, value) for value in as_list(name, values)]


def list_length(k: object, most: int, things: str) -> int:
    """Return the length of a list that is asked for.

    Args:
      k: the length.
      most: how many things there are.
      things: name of the things, for the message.

    Raises:
      UserError: `k` is not a whole number from 1 to `most`.
    """
    number = plain(k)
    if type(number) is not int:
        raise UserError(f"k = {shown(k)}; it must be a whole number, from 1 to the {most:,} {things} there are")
    if not 1 <= number <= most:
        raise UserError(f"k = {shown(k)}; it must be from 1 to the {most:,} {things} there are")
    return number


def moment_of(value: object) -> float:
    """Return a moment in seconds since 1970, which may be infinite.

    Args:
      value: seconds since 1970, or a `datetime`, in UTC where it names no time zone.

    Raises:
      UserError: `value` is neither.
    """
    if isinstance(value, datetime.datetime):
        return fields.seconds_of(value)
    found = plain(value)
    if type(found) is int or type(found) is float:
        with contextlib.suppress(OverflowError):  # an integer beyond all floats
            return float(found)
    raise UserError(f"moment {shown(value)}; it must be seconds since 1970 or a datetime")

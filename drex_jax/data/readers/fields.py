"""The rules for the values of an interaction: id, text, rating, time, vector.

The readers of files call these functions, and so does `drex_jax.serving.rows` for rows that a Python program gives. A
value that breaks a rule raises `BadField`, and its row is rejected.

A missing rating or text (absent, null, empty or blank) is a missing modality. A missing user, item or time is an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import cast

import numpy as np
import orjson

from drex_jax.common.errors import UserError
from drex_jax.data.interactions import MAX_TIMESTAMP, MIN_TIMESTAMP

MAX_ID_BYTES = 1024
MAX_TEXT_BYTES = 1_000_000
MAX_VECTOR_WIDTH = 65_536
_FLOAT32 = 1e38  # a number below it has a float32
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SPLITS = {"0": 0, "train": 0, "1": 1, "valid": 1, "validation": 1, "val": 1, "dev": 1, "2": 2, "test": 2}


class BadField(Exception):  # noqa: N818 (not an error of the program: it rejects one row)
    """A value that breaks a rule, so that its row is rejected."""

    def __init__(self, reason: str, value: object = None):
        """`reason` has the same words for every row with this fault; `value` is the value found, None if unhelpful."""
        super().__init__(reason)
        self.reason = reason
        self.value = value


def identifier(value: object, side: str) -> bytes:
    """Return a user's or item's id in UTF-8. A string stays as it is, an integer becomes its decimal string."""
    if type(value) is str:
        if not value or value.isspace():
            raise BadField(f"no {side}")
        data = _encode(value, side)
    elif type(value) is int:  # Python does not spell integers of more than some 4,300 digits
        data = b"%d" % value if value.bit_length() <= 4 * MAX_ID_BYTES else b"9" * (MAX_ID_BYTES + 1)
    elif value is None:
        raise BadField(f"no {side}")
    else:
        raise BadField(f"{side} is neither a string nor an integer", value)
    if len(data) > MAX_ID_BYTES:
        raise BadField(f"{side} id above {MAX_ID_BYTES:,} bytes", value)
    return data


def review(value: object) -> bytes:
    """Return a text in UTF-8; empty if it is missing."""
    if value is None:
        return b""
    if type(value) is not str:
        raise BadField("text is not a string", value)
    if not value or value.isspace():
        return b""
    data = _encode(value, "text")
    if len(data) > MAX_TEXT_BYTES:
        raise BadField(f"text above {MAX_TEXT_BYTES:,} bytes")
    return data


def titled_review(title: object, body: object) -> bytes:
    """Return title, line break and body in UTF-8; only the body where there is no title; empty where there is no body.

    This is our choice: it keeps the words of the title, which say most, and it agrees with the counts of missing
    reviews that are published with the data sets.
    """
    head, text = review(title), review(body)
    if not text or not head:
        return text
    if len(head) + 1 + len(text) > MAX_TEXT_BYTES:
        raise BadField(f"text above {MAX_TEXT_BYTES:,} bytes")
    return head + b"\n" + text


def _encode(value: str, field: str) -> bytes:
    if "\x00" in value:
        raise BadField(f"NUL byte in the {field}")
    try:
        return value.encode()
    except UnicodeEncodeError as error:  # a lone surrogate: invalid bytes are decoded to one
        raise BadField(f"invalid UTF-8 in the {field}") from error


def _is_blank(value: object) -> bool:
    return type(value) is str and not value.strip()


def rating(value: object, low: float, high: float) -> float:
    """Return a rating from `low` to `high`; NaN if it is missing.

    A Boolean or a string of digits has the wrong type: a reader of untyped text calls `parsed` first. The scale is
    compared in float32, in which ratings are kept.
    """
    if value is None or _is_blank(value):
        return math.nan
    if type(value) is not float and type(value) is not int:
        raise BadField("rating is not a number", value)
    if low <= value <= high:
        return float(value)
    if abs(value) < _FLOAT32 and np.float32(low) <= np.float32(value) <= np.float32(high):
        return float(value)
    if type(value) is float and not math.isfinite(value):
        raise BadField("rating is not finite", value)
    raise BadField(f"rating outside {low:g}..{high:g}", value)


def parsed(value: object) -> object:
    """Return the number that a string spells. Other strings are only stripped; other values stay as they are."""
    if type(value) is not str:
        return value
    text = value.strip()
    try:
        return text if "_" in text else float(text)
    except ValueError:
        return text


def seconds(value: object, per_second: int = 1) -> float:
    """Return seconds since 1970, from a number of units of which a second has `per_second`."""
    if type(value) is not int and type(value) is not float:
        if value is None or _is_blank(value):
            raise BadField("no time")
        raise BadField("time is not a number", value)
    try:
        result = value / per_second
    except OverflowError:  # an integer beyond all floats
        result = math.inf
    if not MIN_TIMESTAMP <= result <= MAX_TIMESTAMP:
        raise BadField("time outside 1900..2200", value)
    return result


def seconds_of(moment: datetime) -> float:
    """Return the seconds since 1970 of a `datetime`, which is in UTC where it names no time zone."""
    if moment.utcoffset() is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH).total_seconds()


def date(value: object, parse: Callable[[str], datetime] = datetime.fromisoformat) -> float:
    """Return the seconds since 1970 of a spelt date, with or without time of day; UTC where it names no time zone.

    Args:
      value: the date.
      parse: reads it; by default as ISO 8601.
    """
    if type(value) is not str:
        raise BadField("no time" if value is None else "time is not a date", value)
    text = value.strip()
    if not text:
        raise BadField("no time")
    try:
        moment = parse(text)
    except (ValueError, OverflowError) as error:
        raise BadField("time is not a date", value) from error
    return seconds(seconds_of(moment))


def time_parser(time_format: str) -> Callable[[object], float]:
    """Return the function that reads the time column of a table.

    Args:
      time_format: a strptime format; "ms" for milliseconds since 1970; empty for seconds since 1970 or ISO 8601,
        told apart value by value (digits alone are seconds).

    Raises:
      UserError: `time_format` is not a strptime format, or its dates do not have a year.
    """
    if time_format == "ms":
        return lambda value: seconds(parsed(value), per_second=1000)
    if time_format:
        sample = datetime(2001, 2, 3, tzinfo=UTC)
        try:
            tells_year = datetime.strptime(sample.strftime(time_format), time_format).year == sample.year
        except (ValueError, re.error):
            tells_year = False
        if not tells_year:
            raise UserError(
                f"data.time_format={time_format!r} is no strptime format of a date with its year; expected one such as "
                "%d.%m.%Y, ms for milliseconds, or nothing for seconds since 1970 and ISO 8601"
            )

        def by_format(value: object) -> float:
            text = str(value) if type(value) is int else value
            return date(text, lambda text: datetime.strptime(text, time_format))

        return by_format

    def by_kind(value: object) -> float:
        number = parsed(value)
        return date(number) if type(number) is str else seconds(number)

    return by_kind


def split_part(value: object) -> int:
    """Return 0 for train, 1 for validation, 2 for test, from such a number or word."""
    number = parsed(value)
    key = f"{number:g}" if type(number) in (float, int) else number.lower() if type(number) is str else ""
    if key not in _SPLITS:
        raise BadField("split is none of 0 train, 1 validation, 2 test", value)
    return _SPLITS[key]


def vector(value: object, width: int | None) -> np.ndarray | None:
    """Return a vector as float32 [width]; None if it is missing.

    Args:
      value: a list of finite numbers, or a string that spells one in JSON.
      width: how many numbers there must be; None: any number of them.
    """
    if isinstance(value, str):
        try:
            value = orjson.loads(value) if value.strip() else None
        except orjson.JSONDecodeError as error:
            raise BadField("vector is not a list of numbers", value) from error
    if value is None:
        return None
    numbers = cast(list[object], value)
    if type(value) is not list or not all(type(number) in (int, float) for number in numbers):
        raise BadField("vector is not a list of numbers", cast(object, value))
    if not 0 < len(numbers) <= MAX_VECTOR_WIDTH:
        raise BadField(f"vector of no number or of more than {MAX_VECTOR_WIDTH:,}", len(numbers))
    if width is not None and len(numbers) != width:
        raise BadField(f"vector of another width than {width:,}", len(numbers))
    try:
        with np.errstate(over="ignore"):
            result = np.array(numbers, np.float64).astype(np.float32)
    except OverflowError as error:  # an integer beyond all floats
        raise BadField("vector is not finite") from error
    if not np.isfinite(result).all():
        raise BadField("vector is not finite", numbers)
    return result

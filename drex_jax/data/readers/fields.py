"""The checks every reader makes on one field of one row. A field that fails raises `BadField`, and its row is rejected.

A missing rating or text (absent, null, empty or only spaces) is a missing modality; a missing user, item or time is
an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import orjson

from drex_jax.common.errors import UserError
from drex_jax.data.interactions import MAX_TIMESTAMP, MIN_TIMESTAMP

MAX_ID_BYTES = 1024
MAX_TEXT_BYTES = 1_000_000
MAX_VECTOR_WIDTH = 65_536
_EPOCH = datetime(1970, 1, 1)
_SPLITS = {"0": 0, "train": 0, "1": 1, "valid": 1, "validation": 1, "val": 1, "dev": 1, "2": 2, "test": 2}


class BadField(Exception):  # noqa: N818 (no error of the program: an answer about a row)
    """Why a row is rejected: a fixed reason, and the value found."""

    def __init__(self, reason: str, value: object = None):
        super().__init__(reason)
        self.reason = reason
        self.value = value


def identifier(value: object, side: str) -> bytes:
    """A user's or item's id in UTF-8. A string stays as it is, an integer becomes its decimal string."""
    if type(value) is str:
        if not value or value.isspace():
            raise BadField(f"no {side}")
        data = _encode(value, side)
        if len(data) > MAX_ID_BYTES:
            raise BadField(f"{side} id above {MAX_ID_BYTES:,} bytes", value)
        return data
    if type(value) is int:
        return b"%d" % value
    if value is None:
        raise BadField(f"no {side}")
    raise BadField(f"{side} is neither a string nor an integer", value)


def review(value: object) -> bytes:
    """A text in UTF-8; empty if missing."""
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
    """Title, line break, body. A review without a body is missing, whatever its title; one without a title is its body.

    That is our choice: it keeps the words of the title, which are the most telling, and agrees with the counts of
    missing reviews that the data sets are published with.
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
    except UnicodeEncodeError as error:  # a lone surrogate: what invalid bytes were decoded to
        raise BadField(f"invalid UTF-8 in the {field}") from error


def rating(value: object, low: float, high: float) -> float:
    """A number of the scale; NaN if missing. A string of digits or a Boolean is a wrong type: see `parsed`."""
    if value is None or value == "":
        return math.nan
    if type(value) is not float and type(value) is not int:
        raise BadField("rating is not a number", value)
    if low <= value <= high:
        return float(value)
    if not math.isfinite(value):
        raise BadField("rating is not finite", value)
    raise BadField(f"rating outside {low:g}..{high:g}", value)


def parsed(value: object) -> object:
    """The number that a string spells; anything else, and an empty string, unchanged (spaces around it removed)."""
    if type(value) is not str:
        return value
    text = value.strip()
    try:
        return text if "_" in text else float(text)
    except ValueError:
        return text


def seconds(value: object, per_second: int = 1) -> float:
    """A number of 1 / `per_second` seconds since 1970, as seconds."""
    if type(value) is not int and type(value) is not float:
        if value is None or value == "":
            raise BadField("no time")
        raise BadField("time is not a number", value)
    result = value / per_second
    if not MIN_TIMESTAMP <= result <= MAX_TIMESTAMP:
        raise BadField("time outside 1900..2200", value)
    return result


def date(value: object, parse: Callable[[str], datetime] = datetime.fromisoformat) -> float:
    """The seconds since 1970 of a date, with or without time of day (ISO 8601 by default); UTC unless it says else."""
    if type(value) is not str:
        raise BadField("no time" if value is None else "time is not a date", value)
    text = value.strip()
    if not text:
        raise BadField("no time")
    try:
        moment = parse(text)
        if moment.tzinfo is not None:
            moment = moment.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError) as error:
        raise BadField("time is not a date", value) from error
    return seconds((moment - _EPOCH).total_seconds())


def time_parser(time_format: str) -> Callable[[object], float]:
    """How the time column of a table is read.

    Args:
      time_format: a strptime format; "ms" for milliseconds since 1970; empty for seconds since 1970 or ISO 8601,
        whichever a value is (digits alone are seconds).

    Raises:
      UserError: the format is none, or one whose dates do not tell the year.
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
    """0 train, 1 validation, 2 test, from such a number or word."""
    number = parsed(value)
    key = f"{number:g}" if type(number) in (float, int) else number.lower() if type(number) is str else ""
    if key not in _SPLITS:
        raise BadField("split is none of 0 train, 1 validation, 2 test", value)
    return _SPLITS[key]


def vector(value: object, width: int | None) -> np.ndarray | None:
    """A list of finite numbers, or a string that spells one in JSON, as float32 [width]; None if missing."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value) if value.strip() else None
        except orjson.JSONDecodeError as error:
            raise BadField("vector is not a list of numbers", value) from error
    if value is None:
        return None
    if not isinstance(value, list) or not all(type(number) in (int, float) for number in value):
        raise BadField("vector is not a list of numbers", value)
    if not 0 < len(value) <= MAX_VECTOR_WIDTH:
        raise BadField(f"vector of no number or of more than {MAX_VECTOR_WIDTH:,}", len(value))
    if width is not None and len(value) != width:
        raise BadField(f"vector of another width than {width:,}", len(value))
    try:
        with np.errstate(over="ignore"):
            result = np.array(value, np.float64).astype(np.float32)
    except OverflowError as error:  # a whole number beyond all floats
        raise BadField("vector is not finite") from error
    if not np.isfinite(result).all():
        raise BadField("vector is not finite", value)
    return result

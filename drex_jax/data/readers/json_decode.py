"""Decode lines of JSON into columns, hundreds of lines at once.

The rules for a row are in `drex_jax.data.readers.fields`. Checking each row with them costs more than parsing it, so a
run of lines is first decoded as columns: if every value is of the ordinary kind (right type, nothing to refuse), a few
array operations make the columns. Otherwise the rows of the run are checked one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import orjson

from drex_jax.common.spelling import shown
from drex_jax.data.interactions import MAX_TIMESTAMP, MIN_TIMESTAMP
from drex_jax.data.readers import fields
from drex_jax.data.readers.chunk import Chunk, Row
from drex_jax.data.readers.lines import MAX_LINE_BYTES, parsed
from drex_jax.data.strings import Strings, offsets_of

VERSION = 1  # of the decoded arrays; part of the cache key
RUN = 512  # lines decoded together
_DATE = np.frombuffer(b"0000-00-00 00:00:00", np.uint8)
_MARKS = np.flatnonzero(ord("0") != _DATE)
_PARTS = ((0, 4), (5, 7), (8, 10), (11, 13), (14, 16), (17, 19))  # year, month, day, hour, minute, second
_STRING, _OPTIONAL, _NUMBER = {str}, {str, type(None)}, {int, float}


class Keys(NamedTuple):
    """The keys of one edition of a format.

    Attributes:
      user, item, time, rating, text: keys in the JSON object.
      title: key of the title of the review; empty if there are no titles.
      per_second: units of `time` in a second; 0 if `time` is a date.
    """

    user: str
    item: str
    time: str
    rating: str
    text: str
    title: str = ""
    per_second: int = 1


class Format(NamedTuple):
    """A format of reviews, one JSON object on each line.

    Attributes:
      name: name of the format.
      keys: function that returns the keys of the edition of a row.
    """

    name: str
    keys: Callable[[dict[str, Any]], Keys]

    def check(self, row: dict[str, Any], scale: tuple[float, float]) -> Row:
        """Return the checked interaction of a row. Raises `fields.BadField`."""
        keys = self.keys(row)
        time, text = row.get(keys.time), row.get(keys.text)
        return Row(
            fields.identifier(row.get(keys.user), "user"),
            fields.identifier(row.get(keys.item), "item"),
            fields.seconds(time, keys.per_second) if keys.per_second else fields.date(time),
            fields.rating(row.get(keys.rating), *scale),
            fields.titled_review(row.get(keys.title), text) if keys.title else fields.review(text),
        )


class Rejected(NamedTuple):
    """A bad row.

    Attributes:
      line: line in the block, from 0.
      reason: reason of the rejection, the same words for every such row.
      value: the value as `quarantine.shown` prints it, or None.
    """

    line: int
    reason: str
    value: str | None


def decode(block: bytes, form: Format, scale: tuple[float, float]) -> dict[str, np.ndarray]:
    """Return the reviews in a block of whole lines, without blank lines, as arrays for `reviews_of`."""
    lines = block.split(b"\n")
    chunks: list[Chunk] = []
    rejected: list[Rejected] = []
    for first in range(0, len(lines), RUN):
        run = lines[first : first + RUN]
        chunk = _at_once(run, form, scale)
        if chunk is None:
            chunk, bad = _one_by_one(run, form, scale)
            rejected += [row._replace(line=first + row.line) for row in bad]
        chunks.append(chunk)
    user, item, text = (
        Strings.concatenate([getattr(chunk, name) for chunk in chunks]) for name in ("user", "item", "text")
    )
    timestamp, rating = (np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in ("timestamp", "rating"))
    listed = np.frombuffer(orjson.dumps([list(row) for row in rejected]), np.uint8)
    return Chunk(user, item, timestamp, rating, text).to_arrays() | {"rejected": listed}


def reviews_of(arrays: Mapping[str, np.ndarray]) -> tuple[Chunk, list[Rejected]]:
    """Return the good rows and the bad rows of a block from `decode`."""
    return Chunk.from_arrays(arrays), [Rejected(*row) for row in orjson.loads(arrays["rejected"].tobytes())]


def _one_by_one(run: list[bytes], form: Format, scale: tuple[float, float]) -> tuple[Chunk, list[Rejected]]:
    """Decode lines by checking each row."""
    good, rejected = [], []
    for number, line in enumerate(run):
        if not line or line.isspace():
            continue
        try:
            good.append(form.check(parsed(line), scale))
        except fields.BadField as bad:
            rejected.append(Rejected(number, bad.reason, None if bad.value is None else shown(bad.value)))
    return Chunk.of(good), rejected


def _at_once(run: list[bytes], form: Format, scale: tuple[float, float]) -> Chunk | None:
    """Decode lines as columns; None if the rows must be checked one by one."""
    if max(map(len, run)) > MAX_LINE_BYTES:
        return None
    try:
        rows = [orjson.loads(line) for line in run if line]
    except orjson.JSONDecodeError:
        return None
    if set(map(type, rows)) != {dict}:
        return None
    keys = form.keys(rows[0])
    if any(form.keys(row) is not keys for row in rows):
        return None
    user, item = (_identifiers([row.get(key) for row in rows]) for key in (keys.user, keys.item))
    times = [row.get(keys.time) for row in rows]
    timestamp = _numbers(times, keys.per_second) if keys.per_second else _dates(times)
    rating = _ratings([row.get(keys.rating) for row in rows], *scale)
    text = _texts([row.get(keys.text) for row in rows], [row.get(keys.title) for row in rows] if keys.title else None)
    if user is None or item is None or timestamp is None or rating is None or text is None:
        return None
    return Chunk(user, item, timestamp, rating, text)


def _identifiers(values: list[Any]) -> Strings | None:
    if set(map(type, values)) != _STRING or "" in values or any(map(str.isspace, values)):
        return None
    ids = _joined(values)
    return ids if ids is not None and ids.lengths.max() <= fields.MAX_ID_BYTES else None


def _texts(values: list[Any], titles: list[Any] | None) -> Strings | None:
    if not set(map(type, values)) <= _OPTIONAL or not set(map(type, titles or ())) <= _OPTIONAL:
        return None
    texts = ["" if not value or value.isspace() else value for value in values]
    if titles is not None:
        texts = [
            f"{title}\n{text}" if text and title and not title.isspace() else text
            for title, text in zip(titles, texts, strict=True)
        ]
    joined = _joined(texts)
    return joined if joined is not None and joined.lengths.max() <= fields.MAX_TEXT_BYTES else None


def _joined(values: list[str]) -> Strings | None:
    """Return the column of the strings; None if one has a NUL character or a lone surrogate."""
    joined = "".join(values)
    try:
        data = joined.encode()
        lengths = list(map(len, values if joined.isascii() else [value.encode() for value in values]))
    except UnicodeEncodeError:
        return None
    if b"\x00" in data:
        return None
    return Strings(np.frombuffer(data, np.uint8), offsets_of(lengths))


def _ratings(values: list[Any], low: float, high: float) -> np.ndarray | None:
    if not set(map(type, values)) <= _NUMBER | {type(None)}:
        return None
    if not all(value is None or low <= value <= high for value in values):
        return None
    return np.array([math.nan if value is None else value for value in values], np.float32)


def _numbers(values: list[Any], per_second: int) -> np.ndarray | None:
    if not set(map(type, values)) <= _NUMBER:
        return None
    seconds = [value / per_second for value in values if -1e15 < value < 1e15]
    return _moments(np.array(seconds)) if len(seconds) == len(values) else None


def _moments(seconds: np.ndarray) -> np.ndarray | None:
    return seconds if len(seconds) and seconds.min() >= MIN_TIMESTAMP and seconds.max() <= MAX_TIMESTAMP else None


def _dates(values: list[Any]) -> np.ndarray | None:
    """Return the timestamps of dates YYYY-MM-DD HH:MM:SS; None if one has another form."""
    if set(map(type, values)) != _STRING:
        return None
    joined = "".join(values)
    if not joined.isascii() or set(map(len, values)) != {len(_DATE)}:
        return None
    letters = np.frombuffer(joined.encode(), np.uint8).reshape(len(values), len(_DATE))
    digits = letters - _DATE  # a character below "0" becomes a large number
    if (letters[:, _MARKS] != _DATE[_MARKS]).any() or (digits > 9).any():
        return None
    year, month, day, hour, minute, second = (
        digits[:, begin:end].astype(np.int64) @ 10 ** np.arange(end - begin - 1, -1, -1) for begin, end in _PARTS
    )
    if ((month < 1) | (month > 12) | (day < 1) | (hour > 23) | (minute > 59) | (second > 59)).any():
        return None
    months = (12 * (year - 1970) + month - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (day - 1)
    if (days.astype("datetime64[M]") != months).any():  # such as a 31st of April
        return None
    return _moments(days.astype(np.int64) * 86400.0 + (3600 * hour + 60 * minute + second))

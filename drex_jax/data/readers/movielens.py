"""Read MovieLens: `ratings.csv` with `tags.csv` beside it, plain or gzip, and `u.data` of ML-100K.

The tags of a user for a movie become the text of the rating of this user and movie, in time order, joined by ", ". The
text is read at the time of the rating, so only tags no later than the rating are joined: a later tag would reveal the
future. The other tags, tags of movies that the user never rated, and the tags of a rating with more than 20 kB of them
are left out and counted in a notice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from drex_jax.data.readers import fields
from drex_jax.data.readers.chunk import Chunk, Row, checked_chunks
from drex_jax.data.readers.find import candidates_in, find_file
from drex_jax.data.readers.lines import Lines
from drex_jax.data.readers.quarantine import Quarantine
from drex_jax.data.readers.separated import records
from drex_jax.data.strings import Strings

EXPECTED = "MovieLens ratings: ratings.csv with userId,movieId,rating,timestamp, or u.data of ML-100K (or .gz)"
_RATING_COLUMNS = ["userId", "movieId", "rating", "timestamp"]
_TAG_COLUMNS = ["userId", "movieId", "tag", "timestamp"]
_MAX_ID = 2**31 - 1
MAX_TAGS_BYTES = 20_000  # of one rating; every rating of a pair repeats the earlier tags of the pair


def find(path: str | Path | None) -> Path:
    """Return the file of ratings at a path or in a folder."""
    return find_file(path, ("ratings.csv", "u.data"), EXPECTED)


def default_range(path: Path) -> tuple[float, float]:
    """Return the scale: half stars from 0.5 to 5, or whole stars from 1 to 5 in `u.data`."""
    return (1.0, 5.0) if _is_u_data(path) else (0.5, 5.0)


def read(path: Path, rating_range: tuple[float, float], quarantine: Quarantine) -> Iterator[Chunk]:
    """Yield chunks of the ratings in file order, with the tags as text."""
    low, high = rating_range

    def check(row: list[str]) -> Row:
        return Row(
            _identifier(row[0], "user"),
            _identifier(row[1], "item"),
            fields.seconds(fields.parsed(row[3])),
            fields.rating(fields.parsed(row[2]), low, high),
        )

    is_u_data = _is_u_data(path)
    rows = _records(path, "\t" if is_u_data else ",", _RATING_COLUMNS, quarantine)
    tags = None if is_u_data else _read_tags(path.parent, quarantine)
    for chunk in checked_chunks(path, rows, check, quarantine):
        yield _with_tags(chunk, tags)
    if tags is not None and tags.joined < len(tags):
        quarantine.notices.append(
            f"{tags.path.name}: {tags.joined:,} of {len(tags):,} tags joined as text; the others belong to no rating "
            "or were written after it"
        )


def _is_u_data(path: Path) -> bool:
    return path.name in ("u.data", "u.data.gz")


def _records(path: Path, delimiter: str, header: list[str], quarantine: Quarantine) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of each row that is not the header."""
    rows = records(Lines(path, quarantine, skip_blank=False), delimiter, quarantine, width=4)
    return ((line, row) for line, row in rows if row != header)


def _identifier(value: str, side: str) -> bytes:
    if not value.strip():
        raise fields.BadField(f"no {side}")
    if not value.isdecimal() or not value.isascii() or len(value) > 10 or int(value) > _MAX_ID:
        raise fields.BadField(f"{side} is not a number below 2^31", value)
    return b"%d" % int(value)


class _Tags:
    """Tags in the order of (user, movie, time, text).

    Attributes:
      path: file of the tags.
      key: user * 2^32 + movie, int64 [n], ascending.
      timestamp: float64 [n].
      text: the tags.
      joined: number of tags used so far.
    """

    def __init__(self, path: Path, chunks: Sequence[Chunk]):
        key = np.concatenate([_keys(chunk) for chunk in chunks])
        timestamp = np.concatenate([chunk.timestamp for chunk in chunks])
        text = Strings.concatenate([chunk.text for chunk in chunks])
        texts = np.array([text.bytes_at(row) for row in range(len(text))], object)
        order = np.lexsort((np.argsort(np.argsort(texts, kind="stable")), timestamp, key))
        self.path = path
        self.key = key[order]
        self.timestamp = timestamp[order]
        self.text = text.take(order)
        self.joined = 0

    def __len__(self) -> int:
        return len(self.key)


def _read_tags(folder: Path, quarantine: Quarantine) -> _Tags | None:
    """Return the tags beside the ratings; None if there is no such file."""
    if not candidates_in(folder, ("tags.csv",)):
        return None
    path = find_file(folder, ("tags.csv",), "MovieLens tags")

    def check(row: list[str]) -> Row:
        text = fields.review(row[2].strip())
        if not text:
            raise fields.BadField("empty tag")
        time = fields.seconds(fields.parsed(row[3]))
        return Row(_identifier(row[0], "user"), _identifier(row[1], "item"), time, np.nan, text)

    rows = _records(path, ",", _TAG_COLUMNS, quarantine)
    return _Tags(path, list(checked_chunks(path, rows, check, quarantine)))


def _keys(chunk: Chunk) -> np.ndarray:
    """Return user * 2^32 + movie, int64 [n]."""
    user = np.array([int(value) for value in chunk.user], np.int64)
    item = np.array([int(value) for value in chunk.item], np.int64)
    return (user << 32) | item


def _with_tags(chunk: Chunk, tags: _Tags | None) -> Chunk:
    """Return the chunk with the tags of its users for its movies as text."""
    if tags is None or not len(tags):
        return chunk
    keys = _keys(chunk)
    begin, end = np.searchsorted(tags.key, keys, "left"), np.searchsorted(tags.key, keys, "right")
    texts = [b""] * len(chunk)
    offsets = tags.text.offsets
    for row in np.flatnonzero(end > begin):
        first = begin[row]
        last = first + np.searchsorted(tags.timestamp[first : end[row]], chunk.timestamp[row], "right")
        if offsets[last] - offsets[first] <= MAX_TAGS_BYTES:
            texts[row] = b", ".join(map(tags.text.bytes_at, range(first, last)))
            tags.joined += int(last - first)
    return dataclasses.replace(chunk, text=Strings.of(texts))

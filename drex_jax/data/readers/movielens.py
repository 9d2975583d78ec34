"""MovieLens: `ratings.csv` with `tags.csv` beside it, plain or gzip, and `u.data` of ML-100K.

A user's tags for a movie become the text of that user's rating of it, in time order, joined by ", ". The text is read
at the moment of the rating, so a later tag would tell the future: only tags no later than the rating are joined.
The others, tags of movies the user never rated, and those of a rating that has more than 20 kB of them, are left out
and counted in a notice.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from drex_jax.data.readers import fields
from drex_jax.data.readers.chunk import Chunk, ChunkBuilder
from drex_jax.data.readers.find import candidates_in, find_file
from drex_jax.data.readers.lines import Lines
from drex_jax.data.readers.quarantine import Quarantine
from drex_jax.data.readers.separated import records
from drex_jax.data.strings import Strings

EXPECTED = "MovieLens ratings: ratings.csv with userId,movieId,rating,timestamp, or u.data of ML-100K (or .gz)"
_RATING_COLUMNS = ["userId", "movieId", "rating", "timestamp"]
_TAG_COLUMNS = ["userId", "movieId", "tag", "timestamp"]
_MAX_ID = 2**31 - 1
MAX_TAGS_BYTES = 20_000  # of one rating: each of a pair's ratings repeats the tags that were there before it


def find(path: str | Path | None) -> Path:
    """The file of ratings at a path or in a folder."""
    return find_file(path, ("ratings.csv", "u.data"), EXPECTED)


def default_range(path: Path) -> tuple[float, float]:
    """The scale: half stars from 0.5 to 5; whole ones from 1 to 5 in `u.data`."""
    return (1.0, 5.0) if _is_u_data(path) else (0.5, 5.0)


def read(path: Path, rating_range: tuple[float, float], quarantine: Quarantine) -> Iterator[Chunk]:
    """Chunks of the ratings in file order, with the tags as text."""
    low, high = rating_range
    lines = Lines(path, quarantine, skip_blank=False)
    if _is_u_data(path):
        rows, tags = records(lines, "\t", quarantine, width=4), None
    else:
        rows = records(lines, ",", quarantine, width=4)
        tags = _read_tags(path.parent, quarantine)
    builder = ChunkBuilder()
    for line, row in rows:
        if row == _RATING_COLUMNS:
            continue
        try:
            builder.add(
                _identifier(row[0], "user"),
                _identifier(row[1], "item"),
                fields.seconds(fields.parsed(row[3])),
                fields.rating(fields.parsed(row[2]), low, high),
                b"",
            )
        except fields.BadField as bad:
            quarantine.reject(path, line, bad.reason, bad.value)
        if builder.full:
            yield _with_tags(builder.take(), tags)
    yield _with_tags(builder.take(), tags)
    if tags is not None and tags.joined < len(tags):
        quarantine.notices.append(
            f"{tags.path.name}: {tags.joined:,} of {len(tags):,} tags joined as text; the others belong to no rating "
            "or were written after it"
        )


def _is_u_data(path: Path) -> bool:
    return path.name in ("u.data", "u.data.gz")


def _identifier(value: str, side: str) -> bytes:
    if not value.strip():
        raise fields.BadField(f"no {side}")
    if not value.isdecimal() or not value.isascii() or len(value) > 10 or int(value) > _MAX_ID:
        raise fields.BadField(f"{side} is not a number below 2^31", value)
    return b"%d" % int(value)


class _Tags:
    """Tags in the order of (user, movie, time, text).

    Attributes:
      key: int64 [n], user * 2^32 + movie, ascending.
      timestamp: float64 [n].
      text: the tags.
      joined: how many were used.
    """

    def __init__(self, path: Path, key: np.ndarray, timestamp: np.ndarray, text: Strings):
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
    """The tags beside the ratings; None if there is no such file, or it is empty."""
    found = candidates_in(folder, ("tags.csv",))
    if not found:
        return None
    path = find_file(folder, ("tags.csv",), "MovieLens tags")
    keys: list[np.ndarray] = []
    times: list[np.ndarray] = []
    texts: list[Strings] = []
    builder = ChunkBuilder()

    def keep(chunk: Chunk) -> None:
        keys.append(_keys(chunk))
        times.append(chunk.timestamp)
        texts.append(chunk.text)

    for line, row in records(Lines(path, quarantine, skip_blank=False), ",", quarantine, width=4):
        if row == _TAG_COLUMNS:
            continue
        try:
            text = fields.review(row[2].strip())
            if not text:
                raise fields.BadField("empty tag")
            time = fields.seconds(fields.parsed(row[3]))
            builder.add(_identifier(row[0], "user"), _identifier(row[1], "item"), time, np.nan, text)
        except fields.BadField as bad:
            quarantine.reject(path, line, bad.reason, bad.value)
        if builder.full:
            keep(builder.take())
    keep(builder.take())
    return _Tags(path, np.concatenate(keys), np.concatenate(times), Strings.concatenate(texts))


def _keys(chunk: Chunk) -> np.ndarray:
    """int64 [n]: user * 2^32 + movie."""
    user = np.array([int(value) for value in chunk.user], np.int64)
    item = np.array([int(value) for value in chunk.item], np.int64)
    return (user << 32) | item


def _with_tags(chunk: Chunk, tags: _Tags | None) -> Chunk:
    """The chunk with the tags of its users for its movies as text."""
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
    return Chunk(chunk.user, chunk.item, chunk.timestamp, chunk.rating, Strings.of(texts))

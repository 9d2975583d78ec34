"""Amazon's "ratings only" files (McAuley lab): CSV without a header, plain or gzip, seconds since 1970.

The release of 2014 has `user,item,rating,timestamp` in each row, that of 2018 `item,user,rating,timestamp`; nothing in
the file tells which.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from drex_jax.common.errors import UserError
from drex_jax.data.readers import fields
from drex_jax.data.readers.chunk import Chunk, ChunkBuilder
from drex_jax.data.readers.lines import Lines
from drex_jax.data.readers.quarantine import Quarantine
from drex_jax.data.readers.separated import records

COLUMNS = ("user", "item", "rating", "timestamp")


def read(
    path: Path, columns: Sequence[str], rating_range: tuple[float, float], quarantine: Quarantine
) -> Iterator[Chunk]:
    """Chunks of the rows in file order.

    Args:
      path: the file.
      columns: the words of `COLUMNS` in the order in which the file has them.
      rating_range: the scale.
      quarantine: told of bad rows; a header would be one of them.

    Raises:
      UserError: other columns.
    """
    if sorted(columns) != sorted(COLUMNS):
        raise UserError(f"the columns {','.join(columns)!r} should be {' '.join(COLUMNS)}, each once, as in the file")
    return _chunks(path, [columns.index(name) for name in COLUMNS], rating_range, quarantine)


def _chunks(
    path: Path, positions: list[int], rating_range: tuple[float, float], quarantine: Quarantine
) -> Iterator[Chunk]:
    user, item, rating, timestamp = positions
    low, high = rating_range
    builder = ChunkBuilder()
    for line, row in records(Lines(path, quarantine, skip_blank=False), ",", quarantine, width=len(COLUMNS)):
        try:
            builder.add(
                fields.identifier(row[user], "user"),
                fields.identifier(row[item], "item"),
                fields.seconds(fields.parsed(row[timestamp])),
                fields.rating(fields.parsed(row[rating]), low, high),
                b"",
            )
        except fields.BadField as bad:
            quarantine.reject(path, line, bad.reason, bad.value)
        if builder.full:
            yield builder.take()
    yield builder.take()

"""Read the "ratings only" files of Amazon (McAuley lab): CSV without a header, plain or gzip, seconds since 1970.

A row of the release of 2014 is `user,item,rating,timestamp`, a row of 2018 is `item,user,rating,timestamp`; nothing in
the file tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from drex_jax.common.errors import UserError
from drex_jax.data.readers import fields
from drex_jax.data.readers.chunk import Chunk, Row, checked_chunks
from drex_jax.data.readers.lines import Lines
from drex_jax.data.readers.quarantine import Quarantine
from drex_jax.data.readers.separated import records

COLUMNS = ("user", "item", "rating", "timestamp")


def read(
    path: Path, columns: Sequence[str], rating_range: tuple[float, float], quarantine: Quarantine
) -> Iterator[Chunk]:
    """Return chunks of the rows in file order.

    Args:
      path: the file.
      columns: the names in `COLUMNS` in the order of the file.
      rating_range: the rating scale.
      quarantine: receives bad rows; a header would be one of them.

    Raises:
      UserError: `columns` are not those of `COLUMNS`.
    """
    if sorted(columns) != sorted(COLUMNS):
        raise UserError(f"the columns {','.join(columns)!r} should be {' '.join(COLUMNS)}, each once, as in the file")
    user, item, rating, timestamp = (columns.index(name) for name in COLUMNS)

    def check(row: list[str]) -> Row:
        return Row(
            fields.identifier(row[user], "user"),
            fields.identifier(row[item], "item"),
            fields.seconds(fields.parsed(row[timestamp])),
            fields.rating(fields.parsed(row[rating]), *rating_range),
        )

    rows = records(Lines(path, quarantine, skip_blank=False), ",", quarantine, width=len(COLUMNS))
    return checked_chunks(path, rows, check, quarantine)

"""MMRec's layout: a folder with `NAME.inter` and feature arrays `*_feat.npy` (those: `drex_jax.data.readers.item_features`).

The table is tab separated with the columns `userID itemID x_label` (0 train, 1 validation, 2 test) and perhaps
`rating timestamp`, which published data sets fill with placeholders: a column with one value throughout is none. Ids
are whole numbers from 0; an item's id is its row in the feature arrays.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.data.interactions import Interactions
from drex_jax.data.readers import fields
from drex_jax.data.readers.chunk import Chunk, ChunkBuilder
from drex_jax.data.readers.find import find_file
from drex_jax.data.readers.lines import Lines
from drex_jax.data.readers.quarantine import Quarantine
from drex_jax.data.readers.separated import records

EXPECTED = "NAME.inter of MMRec: tab separated, with the columns userID itemID x_label, and perhaps rating timestamp"
USER, ITEM, SPLIT, RATING, TIMESTAMP = "userID", "itemID", "x_label", "rating", "timestamp"
MAX_ID_DIGITS = 18  # so that it is an int64


def find(path: str | Path | None) -> Path:
    """The table at a path, or the only one in a folder."""
    return find_file(path, ("*.inter",), EXPECTED, keep=lambda name: not name.startswith("."))


def name_of(path: Path) -> str:
    """What stands before `.inter` in the name of the table."""
    return path.name.removesuffix(".gz").removesuffix(".inter")


def read(path: Path, rating_range: tuple[float, float] | None, quarantine: Quarantine) -> Iterator[Chunk]:
    """Chunks of the rows in file order, with their split; without times every row is at second 0.

    Args:
      path: the table.
      rating_range: the scale of the ratings; None: they are not read.
      quarantine: told of bad rows, and of the columns that are not read.

    Raises:
      UserError: the header lacks a column, or has one twice.
    """
    found = records(Lines(path, quarantine, skip_blank=False), "\t", quarantine)
    header = [name.strip() for name in next(found, (0, []))[1]]
    _check_header(path, header)
    varying = _varying(path, [header.index(name) for name in (RATING, TIMESTAMP) if name in header])
    used = {
        name: header.index(name) for name in (RATING, TIMESTAMP) if name in header and header.index(name) in varying
    }
    if TIMESTAMP not in used:
        why = "one timestamp throughout, a placeholder" if TIMESTAMP in header else "no timestamp column"
        quarantine.notices.append(f"{path.name}: {why}: the data have no times, every interaction is at second 0")
    if RATING in used and rating_range is None:
        del used[RATING]
        quarantine.notices.append(
            f"{path.name}: its ratings are not read; data.rating_min and data.rating_max, their scale, would do it"
        )
    return _chunks(path, found, header, used, rating_range or (0.0, 0.0), quarantine)


def _check_header(path: Path, header: list[str]) -> None:
    known = ascii(", ".join(header))[1:-1][:200]
    for column in (USER, ITEM, SPLIT, RATING, TIMESTAMP):
        if header.count(column) > 1:
            raise UserError(f"{path}: more than one column named {column!r}; its header has: {known}")
    if USER in header and ITEM in header and SPLIT not in header:
        raise UserError(
            f"{path}: no split column; its header has: {known}; add a column {SPLIT!r} with 0 train, 1 validation, "
            "2 test in each row"
        )
    for column in (USER, ITEM, SPLIT):
        if column not in header:
            raise UserError(f"{path}: no column named {column!r}; its header has: {known}; expected {EXPECTED}")


def _varying(path: Path, columns: list[int]) -> set[int]:
    """Which of the columns, by position, hold more than one value; a row without the column is passed over.

    This reads the file once more, but stops where all are known to vary.
    """
    first: dict[int, bytes] = {}
    varying: set[int] = set()
    lines = iter(Lines(path, Quarantine()))
    next(lines, None)  # the header
    for _, line in lines:
        if len(varying) == len(columns):
            break
        values = (line or b"").rstrip(b"\r").split(b"\t")
        varying.update(
            column
            for column in columns
            if column < len(values) and first.setdefault(column, values[column]) != values[column]
        )
    return varying


def _chunks(
    path: Path,
    rows: Iterator[tuple[int, list[str]]],
    header: list[str],
    used: dict[str, int],
    rating_range: tuple[float, float],
    quarantine: Quarantine,
) -> Iterator[Chunk]:
    user, item, split = (header.index(name) for name in (USER, ITEM, SPLIT))
    rating, timestamp = used.get(RATING), used.get(TIMESTAMP)
    low, high = rating_range
    builder = ChunkBuilder(has_split=True)
    for line, row in rows:
        try:
            builder.add(
                _whole_number(row[user], "user"),
                _whole_number(row[item], "item"),
                0.0 if timestamp is None else fields.seconds(fields.parsed(row[timestamp])),
                np.nan if rating is None else fields.rating(fields.parsed(row[rating]), low, high),
                b"",
                split=fields.split_part(row[split]),
            )
        except fields.BadField as bad:
            quarantine.reject(path, line, bad.reason, bad.value)
        if builder.full:
            yield builder.take()
    yield builder.take()


def _whole_number(value: str, side: str) -> bytes:
    text = value.strip()
    if not text:
        raise fields.BadField(f"no {side}")
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_ID_DIGITS):
        raise fields.BadField(f"{side} is no whole number from 0", value)
    return b"%d" % int(text)


def rows_of_items(interactions: Interactions) -> np.ndarray:
    """int64 [I]: the row of each item, in the order of item numbers, in the feature arrays."""
    return np.array([int(name) for name in interactions.item_ids], np.int64)


def notice_untrained(path: Path, interactions: Interactions, notices: list[str]) -> None:
    """Says how many users the split leaves without a train item, if any: they stay, and the evaluation decides."""
    split = interactions.given_split
    trained = np.unique(interactions.user[split == 0]) if split is not None else ()
    missing = interactions.num_users - len(trained)
    if missing:
        notices.append(
            f"{path.name}: {missing:,} of {interactions.num_users:,} users have no train item; their interactions are "
            "kept, and the evaluation's protocol says what becomes of them"
        )

"""Read the layout of MMRec: a folder with `NAME.inter` and feature arrays `*_feat.npy`.

The table is tab separated with the columns `userID itemID x_label` (0 train, 1 validation, 2 test) and optionally
`rating timestamp`. Published data sets fill these with placeholders, so a column with one value throughout counts as
absent. Ids are whole numbers from 0; the id of an item is its row in the feature arrays
(`drex_jax.data.readers.item_features`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.data.interactions import Interactions
from drex_jax.data.readers import fields
from drex_jax.data.readers.chunk import Chunk, Row, checked_chunks
from drex_jax.data.readers.find import find_file
from drex_jax.data.readers.lines import Lines
from drex_jax.data.readers.quarantine import Quarantine
from drex_jax.data.readers.separated import records

EXPECTED = "NAME.inter of MMRec: tab separated, with the columns userID itemID x_label, and perhaps rating timestamp"
USER, ITEM, SPLIT, RATING, TIMESTAMP = "userID", "itemID", "x_label", "rating", "timestamp"
MAX_ID_DIGITS = 18  # fits into an int64


def find(path: str | Path | None) -> Path:
    """Return the table at a path, or the only one in a folder."""
    return find_file(path, ("*.inter",), EXPECTED)


def name_of(path: Path) -> str:
    """Return the file name of the table without `.inter`."""
    return path.name.removesuffix(".gz").removesuffix(".inter")


def read(path: Path, rating_range: tuple[float, float] | None, quarantine: Quarantine) -> Iterator[Chunk]:
    """Return chunks of the rows in file order, with their split; without times every row is at second 0.

    Args:
      path: the table.
      rating_range: the scale of the ratings; None: ratings are not read.
      quarantine: receives bad rows, and notices of columns that are not read.

    Raises:
      UserError: the header lacks a column, or has one twice.
    """
    rows = records(Lines(path, quarantine, skip_blank=False), "\t", quarantine)
    header = [name.strip() for name in next(rows, (0, []))[1]]
    _check_header(path, header)
    position = {name: header.index(name) for name in (USER, ITEM, SPLIT, RATING, TIMESTAMP) if name in header}
    varying = _varying(path, [position[name] for name in (RATING, TIMESTAMP) if name in position])
    rating, timestamp = (name in position and position[name] in varying for name in (RATING, TIMESTAMP))
    if not timestamp:
        why = "one timestamp throughout, a placeholder" if TIMESTAMP in header else "no timestamp column"
        quarantine.notices.append(f"{path.name}: {why}: the data have no times, every interaction is at second 0")
    if rating and rating_range is None:
        rating = False
        quarantine.notices.append(
            f"{path.name}: its ratings are not read; data.rating_min and data.rating_max, their scale, would do it"
        )
    low, high = rating_range or (0.0, 0.0)

    def check(row: list[str]) -> Row:
        return Row(
            _whole_number(row[position[USER]], "user"),
            _whole_number(row[position[ITEM]], "item"),
            fields.seconds(fields.parsed(row[position[TIMESTAMP]])) if timestamp else 0.0,
            fields.rating(fields.parsed(row[position[RATING]]), low, high) if rating else np.nan,
            split=fields.split_part(row[position[SPLIT]]),
        )

    return checked_chunks(path, rows, check, quarantine, has_split=True)


def _check_header(path: Path, header: list[str]) -> None:
    names = ascii(", ".join(header))[1:-1][:200]
    for column in (USER, ITEM, SPLIT, RATING, TIMESTAMP):
        if header.count(column) > 1:
            raise UserError(f"{path}: more than one column named {column!r}; its header has: {names}")
    if USER in header and ITEM in header and SPLIT not in header:
        raise UserError(
            f"{path}: no split column; its header has: {names}; add a column {SPLIT!r} with 0 train, 1 validation, "
            "2 test in each row"
        )
    for column in (USER, ITEM, SPLIT):
        if column not in header:
            raise UserError(f"{path}: no column named {column!r}; its header has: {names}; expected {EXPECTED}")


def _varying(path: Path, columns: list[int]) -> set[int]:
    """Return the columns, by position, that hold more than one value; rows without the column are ignored.

    The file is read a second time, but only until every column is known to vary.
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


def _whole_number(value: str, side: str) -> bytes:
    text = value.strip()
    if not text:
        raise fields.BadField(f"no {side}")
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_ID_DIGITS):
        raise fields.BadField(f"{side} is no whole number from 0", value)
    return b"%d" % int(text)


def rows_of_items(interactions: Interactions) -> np.ndarray:
    """Return the row of each item in the feature arrays, int64 [I]."""
    return np.array([int(name) for name in interactions.item_ids], np.int64)


def notice_untrained(path: Path, interactions: Interactions, notices: list[str]) -> None:
    """Add a notice if the split leaves users without a train item; their interactions are kept."""
    split = interactions.given_split
    trained = np.unique(interactions.user[split == 0]) if split is not None else ()
    missing = interactions.num_users - len(trained)
    if missing:
        notices.append(
            f"{path.name}: {missing:,} of {interactions.num_users:,} users have no train item; their interactions are "
            "kept, and the evaluation's protocol says what becomes of them"
        )

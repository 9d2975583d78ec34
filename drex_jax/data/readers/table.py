"""Read any CSV, TSV, JSON lines or Parquet file, with a mapping from our column names to those of the file.

The kind of file is recognised by its first bytes, not by its name. In CSV and TSV the first record is the header; with
a tab in it the file is a TSV, otherwise with a semicolon and no comma the separator is a semicolon. Numbers may be
strings in every kind of file, as they are in CSV. Our names are `user item rating timestamp text split`; any other name
is a vector modality: a list of numbers, or a string with a JSON list of numbers.
"""

from __future__ import annotations

import collections
import contextlib
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from drex_jax.common.errors import UserError
from drex_jax.data.readers import fields, parquet
from drex_jax.data.readers.chunk import Chunk, Row, checked_chunks
from drex_jax.data.readers.find import find_file
from drex_jax.data.readers.lines import MAX_LINE_BYTES, Lines, TornError, blocks, json_rows
from drex_jax.data.readers.quarantine import Quarantine
from drex_jax.data.readers.separated import records

EXPECTED = "a CSV or TSV file with a header, JSON lines, or Parquet, with the columns that data.columns names"
PATTERNS = ("*.csv", "*.tsv", "*.inter", "*.jsonl", "*.json", "*.parquet")
KNOWN = ("user", "item", "rating", "timestamp", "text", "split")

Lookup = Callable[[str], object]  # the value of a row for one of our column names


def find(path: str | Path | None) -> Path:
    """Return the file at a path, or the only table in a folder."""
    return find_file(path, PATTERNS, EXPECTED)


def columns_of(path: Path) -> tuple[str, ...]:
    """Return the column names of a file: from its header, its Parquet schema, or the keys of its JSON objects.

    Raises:
      UserError: the kind of the file is not recognised.
    """
    head = _head(path)
    if head.startswith(parquet.MAGIC):
        return parquet.columns_of(path)
    ignored = Quarantine()
    if head.lstrip().startswith(b"{"):
        return tuple(dict.fromkeys(key for _, row in json_rows(path, ignored) for key in row))
    return tuple(_separated(path, head, ignored)[0])


def read(
    path: Path,
    columns: Mapping[str, str],
    time_format: str,
    rating_range: tuple[float, float] | None,
    quarantine: Quarantine,
    widths: Mapping[str, int] = types.MappingProxyType({}),
) -> Iterator[Chunk]:
    """Return chunks of the rows in file order.

    Args:
      path: the file.
      columns: our name -> column of the file; an empty or missing name: there is no such column. Without a timestamp
        column every row is at second 0, which only the splits `given` and `random` can use.
      time_format: see `fields.time_parser`.
      rating_range: the rating scale; required with a rating column.
      quarantine: receives the bad rows.
      widths: width of each vector modality, by our name. For a modality that is not here the file is read a second time
        and the commonest width counts (the largest of several commonest ones).

    Raises:
      UserError: the header, or every JSON object, lacks a column; the user column, the item column or the rating range
        is missing; the kind of the file is not recognised.
    """
    columns = {name: column for name, column in columns.items() if column}
    for side in ("user", "item"):
        if side not in columns:
            raise UserError(f"data.columns.{side} is empty: it should name the column of {path.name} with the {side}s")
    if "rating" in columns and rating_range is None:
        raise UserError(
            "data.rating_min and data.rating_max are not set: format=table needs the scale of its rating column "
            "(or data.columns.rating='' where the file has none)"
        )
    if "timestamp" not in columns:
        quarantine.notices.append(f"{path.name}: no time column, every interaction is at second 0")
    vectors = tuple(sorted(set(columns) - set(KNOWN)))
    width_of = {**widths, **_widths(path, columns, set(vectors) - set(widths))}
    parse_time = fields.time_parser(time_format)
    rows = _rows(path, columns, quarantine)
    low, high = rating_range or (0.0, 0.0)

    def check(value: Lookup) -> Row:
        by_name = tuple(fields.vector(value(name), width_of.get(name)) for name in vectors)
        return Row(
            fields.identifier(value("user"), "user"),
            fields.identifier(value("item"), "item"),
            parse_time(value("timestamp")) if "timestamp" in columns else 0.0,
            fields.rating(fields.parsed(value("rating")) if "rating" in columns else None, low, high),
            fields.review(value("text")) if "text" in columns else b"",
            by_name,
            fields.split_part(value("split")) if "split" in columns else 0,
        )

    return checked_chunks(path, rows, check, quarantine, vectors, "split" in columns)


def _widths(path: Path, columns: Mapping[str, str], names: Iterable[str]) -> dict[str, int]:
    """Return the commonest width of each vector modality; it does not depend on the order of the rows."""
    counts = {name: collections.Counter[int]() for name in names}
    for _, value in _rows(path, columns, Quarantine()) if counts else ():
        for name, count in counts.items():
            with contextlib.suppress(fields.BadField):
                vector = fields.vector(value(name), None)
                count.update([] if vector is None else [len(vector)])
    return {name: max(count, key=lambda width: (count[width], width)) for name, count in counts.items() if count}


def _rows(path: Path, columns: Mapping[str, str], quarantine: Quarantine) -> Iterator[tuple[int, Lookup]]:
    """Yield (line, function from our column name to the value) of every readable row of any kind of file."""
    head = _head(path)
    if head.startswith(parquet.MAGIC):
        return _lookups(parquet.rows(path, tuple(columns.values()), quarantine), columns)
    if head.lstrip().startswith(b"{"):
        return _lookups(_with_every_key(path, json_rows(path, quarantine), columns), columns)
    header, rows = _separated(path, head, quarantine)
    for name, column in columns.items():
        if header.count(column) != 1:
            names = ascii(", ".join(header))[1:-1][:200]
            what = "more than one column" if column in header else "no column"
            raise UserError(
                f"{path}: {what} named {column!r} (data.columns.{name}); its header has: {names}; expected {EXPECTED}"
            )
    position = {name: header.index(column) for name, column in columns.items()}
    return ((line, lambda name, record=record: record[position[name]]) for line, record in rows)


def _with_every_key(
    path: Path, rows: Iterator[tuple[int, dict[str, Any]]], columns: Mapping[str, str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows; raise `UserError` for a key that no row has, as the file lacks that column."""
    unseen, keys = dict(columns), ""
    for line, row in rows:
        if unseen:
            unseen = {name: column for name, column in unseen.items() if column not in row}
            keys = ", ".join(row)
        yield line, row
    if unseen and keys:
        name, column = next(iter(unseen.items()))
        raise UserError(
            f"{path}: no object has the key {column!r} (data.columns.{name}); the last one has: "
            f"{ascii(keys)[1:-1][:200]}; expected {EXPECTED}"
        )


def _lookups(rows: Iterator[tuple[int, dict[str, Any]]], columns: Mapping[str, str]) -> Iterator[tuple[int, Lookup]]:
    return ((line, lambda name, row=row: row.get(columns[name])) for line, row in rows)


def _separated(path: Path, head: bytes, quarantine: Quarantine) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Return the header of a CSV or TSV file, and (line number, fields) of its other records."""
    rows = records(Lines(path, quarantine, skip_blank=False), _delimiter(path, head), quarantine)
    return [name.strip() for name in next(rows, (0, []))[1]], rows


def _head(path: Path) -> bytes:
    """Return the beginning of a file, at least its first line."""
    head = b""
    with contextlib.suppress(TornError):
        for block in blocks(path):
            head += block
            if b"\n" in head.lstrip() or len(head) > MAX_LINE_BYTES:
                break
    return head


def _delimiter(path: Path, head: bytes) -> str:
    """Return the delimiter of a CSV or TSV file."""
    first = head.split(b"\n", 1)[0]
    if head.lstrip().startswith(b"["):
        raise UserError(f"{path}: a JSON array; expected {EXPECTED} (one JSON object on each line)")
    if b"\x00" in first:
        raise UserError(f"{path}: not a text file; expected {EXPECTED}")
    return "\t" if b"\t" in first else ";" if b";" in first and b"," not in first else ","

"""Any CSV, TSV, JSON lines or Parquet file, with a mapping from our columns to the file's.

The kind is told by the first bytes, not by the name. In CSV and TSV the first record is the header; a tab in it makes
the file a TSV, else a semicolon without a comma the separator. Numbers may be spelt as strings in every kind, because
they are in CSV. Besides `user item rating timestamp text split`, any other name in the mapping is a vector modality:
a list of numbers, or a string that spells one.
"""

from __future__ import annotations

import collections
import contextlib
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from drex_jax.common.errors import UserError
from drex_jax.data.readers import fields, parquet
from drex_jax.data.readers.chunk import Chunk, ChunkBuilder
from drex_jax.data.readers.find import find_file
from drex_jax.data.readers.lines import MAX_LINE_BYTES, Lines, TornError, blocks, json_rows
from drex_jax.data.readers.quarantine import Quarantine
from drex_jax.data.readers.separated import records

EXPECTED = "a CSV or TSV file with a header, JSON lines, or Parquet, with the columns that data.columns names"
PATTERNS = ("*.csv", "*.tsv", "*.inter", "*.jsonl", "*.json", "*.parquet")
KNOWN = ("user", "item", "rating", "timestamp", "text", "split")


def find(path: str | Path | None) -> Path:
    """The file at a path, or the only table in a folder."""
    return find_file(path, PATTERNS, EXPECTED, keep=lambda name: not name.startswith("."))


def columns_of(path: Path) -> tuple[str, ...]:
    """The names of a file's columns: of its header, of its Parquet schema, or of the keys that its JSON objects have.

    Raises:
      UserError: a file of no known kind.
    """
    head = _head(path)
    if head.startswith(parquet.MAGIC):
        return parquet.columns_of(path)
    ignored = Quarantine()
    if head.lstrip().startswith(b"{"):
        return tuple(dict.fromkeys(key for _, row in json_rows(path, ignored) for key in row))
    found = records(Lines(path, ignored, skip_blank=False), _delimiter(path, head), ignored)
    return tuple(name.strip() for name in next(found, (0, []))[1])


def read(
    path: Path,
    columns: Mapping[str, str],
    time_format: str,
    rating_range: tuple[float, float] | None,
    quarantine: Quarantine,
    widths: Mapping[str, int] = types.MappingProxyType({}),
) -> Iterator[Chunk]:
    """Chunks of the rows in file order.

    Args:
      path: the file.
      columns: our name -> the file's column; an empty or missing name: the file has none. Without a timestamp column
        every row is at second 0, which only the splits `given` and `random` can use.
      time_format: see `fields.time_parser`.
      rating_range: the scale; needed if there is a rating column.
      quarantine: told of bad rows.
      widths: of vectors, by our name; that of a name which is not here is the width that most of its vectors have (of
        several such, the greatest), for which the file is read once more.

    Raises:
      UserError: a column that the file's header, or every JSON object, lacks, no user or item column, no rating range,
        a file of no known kind.
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
    rows, unknown = _rows(path, columns, quarantine), set(columns) - set(KNOWN) - set(widths)
    known = {**widths, **_widths(path, columns, unknown)}
    return _chunks(path, rows, columns, time_format, rating_range, quarantine, known)


def _widths(path: Path, columns: Mapping[str, str], names: Iterable[str]) -> dict[str, int]:
    """The width of each vector modality, whatever the order of the rows."""
    counts = {name: collections.Counter[int]() for name in names}
    for _, value in _rows(path, columns, Quarantine()) if counts else ():
        for name, count in counts.items():
            with contextlib.suppress(fields.BadField):
                vector = fields.vector(value(name), None)
                count.update([] if vector is None else [len(vector)])
    return {name: max(count, key=lambda width: (count[width], width)) for name, count in counts.items() if count}


def _chunks(
    path: Path,
    rows: Iterator[tuple[int, Callable[[str], object]]],
    columns: Mapping[str, str],
    time_format: str,
    rating_range: tuple[float, float] | None,
    quarantine: Quarantine,
    widths: Mapping[str, int],
) -> Iterator[Chunk]:
    parse_time = fields.time_parser(time_format)
    low, high = rating_range or (0.0, 0.0)
    has_rating, has_time, has_text, has_split = (name in columns for name in ("rating", "timestamp", "text", "split"))
    names = tuple(sorted(set(columns) - set(KNOWN)))
    builder = ChunkBuilder(names, has_split)
    for line, value in rows:
        try:
            vectors = tuple(fields.vector(value(name), widths.get(name)) for name in names)
            builder.add(
                fields.identifier(value("user"), "user"),
                fields.identifier(value("item"), "item"),
                parse_time(value("timestamp")) if has_time else 0.0,
                fields.rating(fields.parsed(value("rating")), low, high)
                if has_rating
                else fields.rating(None, low, high),
                fields.review(value("text")) if has_text else b"",
                vectors,
                fields.split_part(value("split")) if has_split else 0,
            )
        except fields.BadField as bad:
            quarantine.reject(path, line, bad.reason, bad.value)
        if builder.full:
            yield builder.take()
    yield builder.take()


def _rows(
    path: Path, columns: Mapping[str, str], quarantine: Quarantine
) -> Iterator[tuple[int, Callable[[str], object]]]:
    """(line, our column name -> value) of every readable row, whatever the kind of the file."""
    head = _head(path)
    if head.startswith(parquet.MAGIC):
        return _lookups(parquet.rows(path, tuple(columns.values()), quarantine), columns)
    if head.lstrip().startswith(b"{"):
        return _lookups(_with_every_key(path, json_rows(path, quarantine), columns), columns)
    return _separated(path, head, columns, quarantine)


def _with_every_key(
    path: Path, rows: Iterator[tuple[int, dict]], columns: Mapping[str, str]
) -> Iterator[tuple[int, dict]]:
    """The rows; a key that none of them has is a column the file does not have, not one that is always missing."""
    unseen, known = dict(columns), ""
    for line, row in rows:
        if unseen:
            unseen = {name: column for name, column in unseen.items() if column not in row}
            known = ", ".join(row)
        yield line, row
    if unseen and known:
        name, column = next(iter(unseen.items()))
        raise UserError(
            f"{path}: no object has the key {column!r} (data.columns.{name}); the last one has: "
            f"{ascii(known)[1:-1][:200]}; expected {EXPECTED}"
        )


def _lookups(
    rows: Iterator[tuple[int, dict]], columns: Mapping[str, str]
) -> Iterator[tuple[int, Callable[[str], object]]]:
    for line, row in rows:
        yield line, lambda name, row=row: row.get(columns[name])


def _separated(
    path: Path, head: bytes, columns: Mapping[str, str], quarantine: Quarantine
) -> Iterator[tuple[int, Callable[[str], object]]]:
    found = records(Lines(path, quarantine, skip_blank=False), _delimiter(path, head), quarantine)
    _, header = next(found, (0, []))
    header = [name.strip() for name in header]
    for name, column in columns.items():
        if header.count(column) != 1:
            known = ascii(", ".join(header))[1:-1][:200]
            what = "more than one column" if column in header else "no column"
            raise UserError(
                f"{path}: {what} named {column!r} (data.columns.{name}); its header has: {known}; expected {EXPECTED}"
            )
    position = {name: header.index(column) for name, column in columns.items()}
    for line, record in found:
        yield line, lambda name, record=record: record[position[name]]


def _head(path: Path) -> bytes:
    """The beginning of a file, with its first line."""
    head = b""
    with contextlib.suppress(TornError):
        for block in blocks(path):
            head += block
            if b"\n" in head.lstrip() or len(head) > MAX_LINE_BYTES:
                break
    return head


def _delimiter(path: Path, head: bytes) -> str:
    """What separates the fields of a file that is neither Parquet nor JSON lines."""
    first = head.split(b"\n", 1)[0]
    if head.lstrip().startswith(b"["):
        raise UserError(f"{path}: a JSON array; expected {EXPECTED} (one JSON object a line)")
    if b"\x00" in first:
        raise UserError(f"{path}: not a text file; expected {EXPECTED}")
    return "\t" if b"\t" in first else ";" if b";" in first and b"," not in first else ","

"""Read the rows of a Parquet file, some thousand at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from drex_jax.common.errors import UserError
from drex_jax.common.progress import progress_bar
from drex_jax.data.readers.lines import require_measure
from drex_jax.data.readers.quarantine import Quarantine

MAGIC = b"PAR1"
BATCH_ROWS = 2_048  # a row can have megabytes, and many rows can share the same few bytes of the file


def rows(path: Path, columns: tuple[str, ...], quarantine: Quarantine) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row from 1, {column: value}) of the given columns; times are seconds since 1970, bytes are decoded.

    A file with a valid footer and damage before it yields the rows up to the damage, and then the quarantine records
    one tear. Raises `UserError` if there is no valid footer, a column is missing, or the compression ratio is above the
    limit.
    """
    with _opened(path) as file:
        names = file.schema_arrow.names
        for column in columns:
            if column not in names:
                raise UserError(f"{path}: no column named {column!r} in data.columns; it has: {', '.join(names)}")
        line, expanded, size = 1, 0, path.stat().st_size
        stated = (file.metadata.row_group(number).total_byte_size for number in range(file.num_row_groups))
        require_measure(str(path), sum(stated), size)
        try:
            with progress_bar(f"reading {path.name}", file.metadata.num_rows, "rows") as bar:
                for batch in file.iter_batches(BATCH_ROWS, columns=list(dict.fromkeys(columns))):
                    expanded += sum(map(_bytes, batch.columns))
                    require_measure(str(path), expanded, size)
                    for values in zip(*(_values(column) for column in batch.columns), strict=True):
                        yield line, dict(zip(batch.schema.names, values, strict=True))
                        line += 1
                    bar.update(len(batch))
        except (pa.ArrowException, OSError):
            quarantine.tear(path, line, "the Parquet file is damaged")


def columns_of(path: Path) -> tuple[str, ...]:
    """Return the column names of a file. Raises `UserError` if it has no valid footer."""
    with _opened(path) as file:
        return tuple(file.schema_arrow.names)


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file (cut short or damaged)") from error


def _bytes(column: pa.Array) -> int:
    """Return the bytes of a column after decoding, without decoding it (every batch brings its whole dictionary)."""
    if not pa.types.is_dictionary(column.type):
        return column.nbytes
    words = column.dictionary  # pyright: ignore[reportAttributeAccessIssue]
    if not (pa.types.is_binary(words.type) or pa.types.is_string(words.type) or pa.types.is_large_string(words.type)):
        return len(column) * max(words.nbytes // max(len(words), 1), 1)
    lengths = pc.binary_length(words).take(column.indices)  # pyright: ignore[reportAttributeAccessIssue]
    return pc.sum(lengths).as_py() or 0  # pyright: ignore[reportAttributeAccessIssue]


def _values(column: pa.Array) -> list[Any]:
    """Return a column as Python values for the checks in `fields`."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()  # pyright: ignore[reportAttributeAccessIssue]
        kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        whole = column.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False).cast(pa.int64())
        return [None if value is None else value / 1e6 for value in whole.to_pylist()]
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        column = column.cast(pa.large_binary())
    return [value.decode("utf-8", "surrogateescape") if type(value) is bytes else value for value in column.to_pylist()]

"""Rearrange published feature arrays into one row for each item; an item without features gets a row of NaN."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.common.spelling import shown
from drex_jax.data.readers import item_features

BINARY_WIDTH = 4096
_ID_BYTES = 10
_RECORD_BYTES = _ID_BYTES + 4 * BINARY_WIDTH
_BLOCK_ROWS = 1024


def align(array: Path, ids: Path, items: Mapping[bytes, int], out: Path) -> int:
    """Write the rows of an array in the order of the items.

    Args:
      array: a .npy file, real numbers [rows, width].
      ids: a text file with the item id of each row, one id on each line.
      items: the row in `out` of each item id; rows of other items are left out.
      out: the .npy file to write, float32 [items, width].

    Returns:
      The number of items with features.

    Raises:
      UserError: a file is unreadable, the numbers of ids and rows differ, an id occurs twice, or a row is partly NaN or
        infinite.
    """
    source = item_features.open_array(array)
    names = _ids(ids)
    if len(names) != len(source):
        raise UserError(
            f"{ids}: {len(names):,} ids for the {len(source):,} rows of {array}; expected one id on a line for each row"
        )
    first: dict[bytes, int] = {}
    for row, name in enumerate(names):
        if not name:
            raise UserError(f"{ids}: line {row + 1} is empty; expected the item id of row {row} of {array}")
        if first.setdefault(name, row) != row:
            spelt = shown(name.decode("utf-8", "replace"))
            raise UserError(f"{ids}: {spelt} is on line {first[name] + 1} and on line {row + 1}; expected it once")
    wanted = [(row, items[name]) for name, row in first.items() if name in items]
    table = _table(out, len(items), source.shape[1])
    present = 0
    for begin in range(0, len(wanted), _BLOCK_ROWS):
        rows, targets = np.array(wanted[begin : begin + _BLOCK_ROWS], np.int64).T
        table[targets], absent = item_features.checked(array, source[rows], rows)
        present += int(np.count_nonzero(~absent))
    table.flush()
    return present


def from_binary(path: Path, items: Mapping[bytes, int], out: Path) -> int:
    """Write the features of a McAuley binary file (10 bytes of asin, then 4,096 little-endian float32).

    The file is read record by record, never as a whole. If an asin occurs twice, the first record counts.

    Args:
      path: the file, such as `image_features_Baby.b`.
      items: the row in `out` of each item id; records of other items are skipped.
      out: the .npy file to write, float32 [items, 4096].

    Returns:
      The number of items with features.

    Raises:
      UserError: the file cannot be read or does not consist of whole records; an asin is not ASCII; a used record is
        partly NaN or infinite.
    """
    expected = f"records of {_RECORD_BYTES:,} bytes: 10 of asin, then {BINARY_WIDTH:,} float32"
    try:
        size = path.stat().st_size
        if not size or size % _RECORD_BYTES:
            raise UserError(
                f"{path}: {size:,} bytes are {size // _RECORD_BYTES:,} records and {size % _RECORD_BYTES:,} bytes; "
                f"expected {expected}"
            )
        table = _table(out, len(items), BINARY_WIDTH)
        present = np.zeros(len(items), bool)
        done = np.zeros(len(items), bool)
        with path.open("rb") as file:
            for record in range(size // _RECORD_BYTES):
                name = file.read(_ID_BYTES)
                if not name.isascii() or not name.strip().isalnum():
                    raise UserError(
                        f"{path}: record {record} (from 0) begins with {name!r}, no asin; expected {expected}"
                    )
                row = items.get(name.strip())
                if row is None or done[row]:
                    file.seek(4 * BINARY_WIDTH, 1)
                    continue
                block = np.frombuffer(file.read(4 * BINARY_WIDTH), "<f4")[None]
                values, absent = item_features.checked(path, block, np.array([record]))
                table[row], done[row], present[row] = values[0], True, not absent[0]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected {expected}") from error
    table.flush()
    return int(present.sum())


def _table(out: Path, rows: int, width: int) -> np.memmap:
    """Create a .npy file of NaN, memory-mapped for writing."""
    table = np.lib.format.open_memmap(out, mode="w+", dtype=np.float32, shape=(rows, width))
    for begin in range(0, rows, _BLOCK_ROWS):
        table[begin : begin + _BLOCK_ROWS] = np.nan
    return table


def _ids(path: Path) -> list[bytes]:
    try:
        return [line.strip() for line in path.read_bytes().removeprefix(b"\xef\xbb\xbf").rstrip().split(b"\n")]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected an item id on each line") from error

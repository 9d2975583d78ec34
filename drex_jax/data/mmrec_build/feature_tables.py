"""Feature arrays as they are published, rearranged into one row an item; a row of NaN where an item has none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.data.readers import item_features

BINARY_WIDTH = 4096
_ID_BYTES = 10
_RECORD_BYTES = _ID_BYTES + 4 * BINARY_WIDTH
_BLOCK_ROWS = 1024


def align(array: Path, ids: Path, items: Mapping[bytes, int], out: Path) -> int:
    """Writes the rows of an array at the places of their items.

    Args:
      array: a .npy file, [rows, width] of real numbers.
      ids: a text file with the item id of each row, one a line.
      items: the row in `out` of each item id; other rows of the array are left out.
      out: the .npy file to write, float32 [items, width].

    Returns:
      How many items have features.

    Raises:
      UserError: an unreadable file, more or fewer ids than rows, an id twice, a row partly NaN or infinite.
    """
    source = item_features.open_array(array)
    names = _ids(ids)
    if len(names) != len(source):
        raise UserError(
            f"{ids}: {len(names):,} ids for the {len(source):,} rows of {array}; expected one a line and row"
        )
    first: dict[bytes, int] = {}
    for row, name in enumerate(names):
        if not name:
            raise UserError(f"{ids}: line {row + 1} is empty; expected the item id of row {row} of {array}")
        if first.setdefault(name, row) != row:
            raise UserError(
                f"{ids}: {_shown(name)} is on line {first[name] + 1} and on line {row + 1}; expected it once"
            )
    wanted = [(row, items[name]) for name, row in first.items() if name in items]
    table = _table(out, len(items), source.shape[1])
    present = 0
    for begin in range(0, len(wanted), _BLOCK_ROWS):
        rows, places = np.array(wanted[begin : begin + _BLOCK_ROWS], np.int64).T
        table[places], absent = item_features.checked(array, source[rows], rows)
        present += int(np.count_nonzero(~absent))
    table.flush()
    return present


def from_binary(path: Path, items: Mapping[bytes, int], out: Path) -> int:
    """Writes the features of a McAuley binary file (10 bytes of asin, then 4,096 float32, little end first).

    The file is read record by record, never whole; of an asin that it has twice, the first record counts.

    Args:
      path: such as `image_features_Baby.b`.
      items: the row in `out` of each item id; other records are passed over.
      out: the .npy file to write, float32 [items, 4096].

    Returns:
      How many items have features.

    Raises:
      UserError: the file cannot be read, is no whole number of records, has an asin that is no ASCII, or a wanted
        record that is partly NaN or infinite.
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
        known = np.zeros(len(items), bool)
        with path.open("rb") as file:
            for record in range(size // _RECORD_BYTES):
                name = file.read(_ID_BYTES)
                if not name.isascii() or not name.strip().isalnum():
                    raise UserError(
                        f"{path}: record {record} (from 0) begins with {name!r}, no asin; expected {expected}"
                    )
                place = items.get(name.strip())
                if place is None or known[place]:
                    file.seek(4 * BINARY_WIDTH, 1)
                    continue
                block = np.frombuffer(file.read(4 * BINARY_WIDTH), "<f4")[None]
                values, absent = item_features.checked(path, block, np.array([record]))
                table[place], known[place], present[place] = values[0], True, not absent[0]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected {expected}") from error
    table.flush()
    return int(present.sum())


def _table(out: Path, rows: int, width: int) -> np.memmap:
    """A new .npy file of NaN, mapped for writing."""
    table = np.lib.format.open_memmap(out, mode="w+", dtype=np.float32, shape=(rows, width))
    for begin in range(0, rows, _BLOCK_ROWS):
        table[begin : begin + _BLOCK_ROWS] = np.nan
    return table


def _ids(path: Path) -> list[bytes]:
    try:
        return [line.strip() for line in path.read_bytes().removeprefix(b"\xef\xbb\xbf").rstrip().split(b"\n")]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected an item id a line") from error


def _shown(name: bytes) -> str:
    return ascii(name.decode("utf-8", "replace"))[:80]

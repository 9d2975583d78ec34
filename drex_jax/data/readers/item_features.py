"""Read feature arrays of items, `NAME_feat.npy`; check every row and sort the rows by item number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.data import storage

SUFFIX = "_feat.npy"
MAX_WIDTH = 65_536  # numbers for an item
EXPECTED = "numbers [items, width] that numpy.save wrote, a row for each item id"
_BLOCK_BYTES = 1 << 24  # bytes of features converted and checked at once


def find(folder: Path, names: Sequence[str] = ()) -> dict[str, Path]:
    """Return the feature files of a folder by modality, in alphabetical order.

    Args:
      folder: the folder.
      names: only these modalities; empty: all modalities.

    Raises:
      UserError: there is no file for one of `names`.
    """
    files = {path.name.removesuffix(SUFFIX): path for path in sorted(folder.glob(f"?*{SUFFIX}")) if path.is_file()}
    for name in names:
        if name not in files:
            names_there = ", ".join(path.name for path in files.values()) or "none"
            raise UserError(
                f"data.item_features: {folder / f'{name}{SUFFIX}'} does not exist; feature files there: {names_there}"
            )
    return {name: path for name, path in files.items() if not names or name in names}


def open_array(path: Path) -> np.ndarray:
    """Return the memory-mapped array of a feature file, [rows, width] of a real number type; never unpickled.

    Raises:
      UserError: the file cannot be read, is not a .npy file, is damaged, or holds anything else.
    """
    try:
        array = storage.mapped(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); expected {EXPECTED}") from error
    except ValueError as error:
        raise UserError(
            f"{path}: damaged, an archive of arrays or Python objects, which are never loaded; expected {EXPECTED} "
            "(allow_pickle=False)"
        ) from error
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
        raise UserError(f"{path}: holds {array.dtype}; expected {EXPECTED}: float16, float32, float64 or integers")
    if array.ndim != 2 or not array.shape[1]:
        raise UserError(f"{path}: holds an array of shape {array.shape}; expected {EXPECTED}")
    if array.shape[1] > MAX_WIDTH:
        raise UserError(f"{path}: {array.shape[1]:,} numbers for an item; at most {MAX_WIDTH:,} are read")
    return array


def checked(path: Path, block: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of features as float32 [n, width], NaN throughout where missing, and which are missing, bool [n].

    Args:
      path: file of the features.
      block: real numbers [n, width].
      rows: row of each in the file, int [n], for messages.

    Raises:
      UserError: a row is partly NaN, infinite or beyond float32.
    """
    with np.errstate(over="ignore"):
        values = block.astype(np.float32)
    absent = np.isnan(values).all(axis=1) | (values == 0).all(axis=1)
    broken = np.flatnonzero(~np.isfinite(values).all(1) & ~absent)
    if len(broken):
        raise UserError(
            f"{path}: row {rows[broken[0]]} (from 0) is partly NaN, infinite or beyond float32; expected finite "
            "numbers, or a row that is all NaN where the item has no such features"
        )
    values[absent] = np.nan
    return values, absent


def read(paths: Mapping[str, Path], ids: np.ndarray, notices: list[str]) -> dict[str, np.ndarray]:
    """Return the features of each modality, in the order of `ids`.

    A row of NaN or of zeros means that the item lacks the modality.

    Args:
      paths: the file of each modality, from `find`.
      ids: the row of each item in the files, int64 [I], distinct.
      notices: receives a sentence for each modality with missing items, and for each file with rows of other items.

    Returns:
      float32 [I, width] for each modality, row i for `ids[i]`; a row of NaN is missing.

    Raises:
      UserError: a file is unreadable (see `open_array`) or has too few rows; a row is partly NaN, infinite or beyond
        float32; no item has the modality.
    """
    return {name: _read(name, path, ids, notices) for name, path in paths.items()}


def _read(name: str, path: Path, ids: np.ndarray, notices: list[str]) -> np.ndarray:
    array = open_array(path)
    rows, width = array.shape
    if ids.max() >= rows:
        raise UserError(
            f"{path}: {rows:,} rows, but the data has item {ids.max()} ({np.count_nonzero(ids >= rows):,} item ids are "
            f"beyond the table): it should have {ids.max() + 1:,} rows or more, row = item id"
        )
    values = np.empty((len(ids), width), np.float32)
    absent = np.empty(len(ids), bool)
    order = np.argsort(ids)  # read the file from its beginning to its end
    step = max(_BLOCK_BYTES // (4 * width), 1)
    for targets in (order[begin : begin + step] for begin in range(0, len(order), step)):
        values[targets], absent[targets] = checked(path, array[ids[targets]], ids[targets])
    if absent.all():
        raise UserError(f"{path}: every row is NaN or zeros: no item has {name} features")
    if absent.any():
        notices.append(
            f"{path.name}: {np.count_nonzero(absent):,} of {len(ids):,} items have no {name} features (a row of NaN or "
            f"zeros; the first is row {ids[absent].min()}): missing"
        )
    if rows > len(ids):
        notices.append(f"{path.name}: {rows - len(ids):,} of {rows:,} rows are of items without interactions")
    return values

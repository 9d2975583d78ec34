"""A folder of .npy columns and a small JSON file: the storage of `Interactions`, memory-mapped when read."""

from __future__ import annotations

import shutil
import tempfile
import tokenize
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson

from drex_jax.common.errors import UserError
from drex_jax.common.files import json_of
from drex_jax.data.strings import Strings

_MAP_FROM_BYTES = 1 << 16  # a smaller column is copied into memory


def write_columns(folder: str | Path, header: dict[str, Any], columns: Mapping[str, np.ndarray | Strings]) -> None:
    """Write a folder atomically: into a temporary folder beside it, which is then renamed.

    An existing folder is replaced. `header` is written to `columns.json`.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        new = temporary / "new"
        new.mkdir()
        for name, column in columns.items():
            if isinstance(column, Strings):
                _save(new / f"{name}.bytes.npy", column.data)
                _save(new / f"{name}.offsets.npy", column.offsets)
            else:
                _save(new / f"{name}.npy", column)
        (new / "columns.json").write_bytes(orjson.dumps(header, option=orjson.OPT_INDENT_2))
        if folder.exists():
            folder.replace(temporary / "old")
        new.replace(folder)
    finally:
        shutil.rmtree(temporary)


def _save(path: Path, column: np.ndarray) -> None:
    """Write like `np.save`, but report a full disk: NumPy bypasses a Python file and may not notice a lost write."""
    with path.open("wb") as file:
        np.lib.format.write_array(SimpleNamespace(write=file.write), column, allow_pickle=False)  # pyright: ignore[reportArgumentType]


def read_header(folder: str | Path, schema: str) -> dict[str, Any]:
    """Return the header of a folder written by `write_columns`. Raises `UserError` if its "schema" is not `schema`."""
    path = Path(folder) / "columns.json"
    try:
        header = json_of(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected a folder of saved columns") from error
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); the run directory is damaged") from error
    if not isinstance(header, dict) or header.get("schema") != schema:
        raise UserError(f"{path}: not of schema {schema!r}; the run directory is damaged")
    return header


def read_array(folder: str | Path, name: str, dtype: type, ndim: int = 1, mmap: bool = True) -> np.ndarray:
    """Return a column, memory-mapped if large. Raises `UserError` if it is missing, damaged or of another type."""
    path = Path(folder) / f"{name}.npy"
    try:
        column = mapped(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise UserError(f"{path}: damaged; the run directory is damaged") from error
    if column.dtype != dtype or column.ndim != ndim:
        raise UserError(
            f"{path}: holds {column.dtype} of {column.ndim} dimensions, not {np.dtype(dtype)} of {ndim}; "
            "the run directory is damaged"
        )
    return column if mmap and column.nbytes >= _MAP_FROM_BYTES else np.array(column)


def read_strings(folder: str | Path, name: str, mmap: bool = True) -> Strings:
    """Return a column of strings; errors as in `read_array`."""
    strings = Strings(
        read_array(folder, f"{name}.bytes", np.uint8, mmap=mmap),
        read_array(folder, f"{name}.offsets", np.int64, mmap=mmap),
    )
    offsets = strings.offsets
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(strings.data) or (np.diff(offsets) < 0).any():
        raise UserError(f"{Path(folder) / f'{name}.offsets.npy'}: does not fit its bytes; the run directory is damaged")
    return strings


# Errors of NumPy for an invalid header, which it parses with `ast.literal_eval`.
NO_HEADER = (EOFError, TypeError, OverflowError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError)


def mapped(path: Path) -> np.ndarray:
    """Return the memory-mapped array of a .npy file; a header that claims more than the file holds is an error.

    Raises:
      OSError: the file cannot be read.
      ValueError: the file is damaged, not a .npy file, an archive of arrays, or holds Python objects.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except NO_HEADER as error:
        raise ValueError(str(error)) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError("an archive of arrays")
    return array

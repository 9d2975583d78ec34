"""A folder of .npy columns and a small JSON: how `Interactions` live on disk, memory-mapped when read."""

from __future__ import annotations

import shutil
import tempfile
import tokenize
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import orjson

from drex_jax.common.errors import UserError
from drex_jax.common.files import json_of
from drex_jax.data.strings import Strings

_MAP_FROM_BYTES = 1 << 16  # a smaller column is read at once


def write_columns(folder: str | Path, header: dict, columns: Mapping[str, np.ndarray | Strings]) -> None:
    """Writes a folder, all of it or nothing: into a temporary folder beside it, which then takes its name.

    A folder that was there before is replaced. `header` goes to `columns.json`.
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
    """`np.save`, but for a full disk: to a file of Python's NumPy writes past it, and may not say what it lost."""
    with path.open("wb") as file:
        np.lib.format.write_array(SimpleNamespace(write=file.write), column, allow_pickle=False)  # pyright: ignore[reportArgumentType]


def read_header(folder: str | Path, schema: str) -> dict:
    """The JSON object of a folder written by `write_columns`, whose "schema" must be `schema`; else `UserError`."""
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
    """One column, memory-mapped if large. Raises `UserError` if it is missing, damaged or of another type."""
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
    """A column of strings; errors as in `read_array`."""
    strings = Strings(
        read_array(folder, f"{name}.bytes", np.uint8, mmap=mmap),
        read_array(folder, f"{name}.offsets", np.int64, mmap=mmap),
    )
    offsets = strings.offsets
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(strings.data) or (np.diff(offsets) < 0).any():
        raise UserError(f"{Path(folder) / f'{name}.offsets.npy'}: does not fit its bytes; the run directory is damaged")
    return strings


# What NumPy raises of a header that is none; it reads one as a literal, by `ast.literal_eval`.
NO_HEADER = (EOFError, TypeError, OverflowError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError)


def mapped(path: Path) -> np.ndarray:
    """The array of a file that `numpy.save` wrote, memory-mapped: whatever its header claims, it ends with the file.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is damaged, no such file or an archive of arrays, or holds Python objects.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except NO_HEADER as error:
        raise ValueError(str(error)) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError("an archive of arrays")
    return array

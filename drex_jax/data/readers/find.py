"""Finds a format's file: a path may name the file itself or the folder that holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from drex_jax.common.errors import UserError


class MissingError(UserError):
    """There is no file: no path is given, or there is none at the path."""


def find_file(
    path: str | Path | None, patterns: Iterable[str], expected: str, keep: Callable[[str], bool] = bool
) -> Path:
    """The file to read.

    Args:
      path: a file, whatever its name, or a folder.
      patterns: glob patterns of the names the format has in a folder; each is also tried with ".gz".
      expected: what the format's file is, for messages.
      keep: which of the names found may be the file.

    Raises:
      MissingError: no path, nothing there, or a folder without a candidate.
      UserError: an empty file, a pipe, or a folder with more than one candidate.
    """
    if not path:
        raise MissingError(f"data.path is not set: it should name {expected}")
    path = Path(path)
    patterns = tuple(patterns)
    try:
        path.stat()
    except FileNotFoundError:
        pass  # told below, with what was expected
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected {expected}") from error
    if path.is_dir():
        candidates = candidates_in(path, patterns, keep)
        if not candidates:
            raise MissingError(f"{path}: no file here is named {' or '.join(patterns)} (or .gz); expected {expected}")
        if len(candidates) > 1:
            names = ", ".join(candidate.name for candidate in candidates)
            raise UserError(f"{path}: more than one file could be meant ({names}); let data.path name one of them")
        path = candidates[0]
    if not path.exists():
        raise MissingError(f"{path}: no such file; expected {expected}")
    if not path.is_file():
        raise UserError(f"{path}: a pipe or a device, and it is read more than once; write it to a file first")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty; expected {expected}")
    return path


def candidates_in(folder: Path, patterns: Iterable[str], keep: Callable[[str], bool] = bool) -> list[Path]:
    """The files of a folder whose names match a pattern, plain or with ".gz", sorted by name."""
    found = {
        file
        for pattern in patterns
        for name in (pattern, f"{pattern}.gz")
        for file in folder.glob(name)
        if file.is_file() and keep(file.name)
    }
    return sorted(found)

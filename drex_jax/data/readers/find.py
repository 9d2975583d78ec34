"""Find the file of a format: a path may name the file itself or the folder that holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from drex_jax.common.errors import UserError


class MissingError(UserError):
    """There is no file: no path is given, or nothing is at the path."""


def is_visible(name: str) -> bool:
    """Return True if a file name does not begin with a dot."""
    return not name.startswith(".")


def find_file(
    path: str | Path | None, patterns: Iterable[str], expected: str, keep: Callable[[str], bool] = is_visible
) -> Path:
    """Return the file to read.

    Args:
      path: a file of any name, or a folder.
      patterns: glob patterns for the names of the format in a folder; each is also tried with ".gz".
      expected: description of the file of the format, for messages.
      keep: True for a matching name that may be the file.

    Raises:
      MissingError: there is no path, nothing at the path, or a folder without a candidate.
      UserError: the file is empty or a pipe, or the folder has more than one candidate.
    """
    if not path:
        raise MissingError(f"data.path is not set: it should name {expected}")
    path = Path(path)
    patterns = tuple(patterns)
    try:
        path.stat()
    except FileNotFoundError:
        pass  # reported below, with the expected file
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


def candidates_in(folder: Path, patterns: Iterable[str], keep: Callable[[str], bool] = is_visible) -> list[Path]:
    """Return the files of a folder whose names match a pattern, plain or with ".gz", sorted by name."""
    return sorted(
        {
            file
            for pattern in patterns
            for name in (pattern, f"{pattern}.gz")
            for file in folder.glob(name)
            if file.is_file() and keep(file.name)
        }
    )

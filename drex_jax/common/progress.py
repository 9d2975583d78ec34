"""Progress bars on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
DELAY_SECONDS = 2.0  # shorter work shows no bar


def progress_bar(what: str, total: int | None, unit: str, **options: Any) -> tqdm[Any]:
    """Return a bar on standard error: a context manager with an `update` method. Silent if that is not a terminal.

    Args:
      what: the work, in one or two words.
      total: number of units; None if unknown.
      unit: the word that follows a number, such as "rows".
      options: further arguments of `tqdm`.
    """
    settings: dict[str, Any] = {
        "disable": None,
        "delay": DELAY_SECONDS,
        "leave": False,
        "mininterval": 0.5,
        "unit": f" {unit}",
    }
    return tqdm(desc=what, total=total, **settings | options)


def iterated(elements: Sequence[T], what: str, unit: str) -> Iterator[T]:
    """Yield the elements, with a bar that counts them."""
    return iter(progress_bar(what, len(elements), unit, iterable=elements))

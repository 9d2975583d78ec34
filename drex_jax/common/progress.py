"""How far long work is, for whoever waits at a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
DELAY_SECONDS = 2.0  # shorter work shows nothing


def progress_bar(what: str, total: int | None, unit: str, **options: Any) -> tqdm:
    """A bar on standard error, used as a context manager and moved by its `update`; silent where that is no terminal.

    Args:
      what: is being done, in a word or two.
      total: units of it; None where nobody knows.
      unit: as it is to be read after a number, such as "rows".
      options: more of tqdm's.
    """
    settings = {"disable": None, "delay": DELAY_SECONDS, "leave": False, "mininterval": 0.5, "unit": f" {unit}"}
    return tqdm(desc=what, total=total, **settings | options)


def iterated(all_of_them: Sequence[T], what: str, unit: str) -> Iterator[T]:
    """The elements one after the other, with a bar that says how many are done."""
    with progress_bar(what, len(all_of_them), unit) as bar:
        for each in all_of_them:
            yield each
            bar.update()

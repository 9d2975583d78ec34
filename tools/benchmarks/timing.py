"""Rates: warm up, repeat, take the median, keep the spread."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np

ENOUGH_REPEATS = 3  # a median needs that many, however long they take


@dataclasses.dataclass(frozen=True)
class Rate:
    """Interactions a second over repeated calls.

    Attributes:
      median: of the calls.
      lowest: of the slowest call.
      highest: of the fastest.
    """

    median: float
    lowest: float
    highest: float

    @property
    def spread(self) -> float:
        """The highest less the lowest, as a share of the median."""
        return (self.highest - self.lowest) / self.median


def measure(call: Callable[[], object], interactions: int, repeats: int = 5, seconds: float = 20.0) -> Rate:
    """Time `call`, after one call that is not counted.

    Args:
      call: does all its work before it returns.
      interactions: that one call processes.
      repeats: timed calls, at least 1.
      seconds: after that much time no call is added to the first three (or to `repeats`, if fewer).
    """
    call()
    times: list[float] = []
    while len(times) < repeats and (len(times) < ENOUGH_REPEATS or sum(times) < seconds):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    rates = interactions / np.maximum(times, 1e-9)
    return Rate(float(np.median(rates)), float(rates.min()), float(rates.max()))

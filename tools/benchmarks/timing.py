"""Measure rates: warm up, repeat, take the median, keep the spread."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np

ENOUGH_REPEATS = 3  # calls that a median needs, however long they take


@dataclasses.dataclass(frozen=True)
class Rate:
    """Interactions a second over repeated calls.

    Attributes:
      median: the median of the calls.
      lowest: the rate of the slowest call.
      highest: the rate of the fastest call.
    """

    median: float
    lowest: float
    highest: float

    @property
    def spread(self) -> float:
        """Return the highest minus the lowest, as a share of the median."""
        return (self.highest - self.lowest) / self.median


def measure(call: Callable[[], object], interactions: int, repeats: int = 5, seconds: float = 20.0) -> Rate:
    """Time `call`, after one call that is not counted.

    Args:
      call: the function; it finishes all its work before it returns.
      interactions: number of interactions that one call processes.
      repeats: number of timed calls, at least 1.
      seconds: no more calls start after this time, except that at least three (or `repeats`, if fewer) are timed.
    """
    call()
    times: list[float] = []
    while len(times) < repeats and (len(times) < ENOUGH_REPEATS or sum(times) < seconds):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    rates = interactions / np.maximum(times, 1e-9)
    return Rate(float(np.median(rates)), float(rates.min()), float(rates.max()))

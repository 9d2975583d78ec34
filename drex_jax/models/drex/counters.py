"""Counts, times and running biases just before each interaction. They have no parameters, so they are computed once.

Letters: n interactions, U users, I items.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from drex_jax.common.streams import occurrences, previous_and_next
from drex_jax.data.events import Events
from drex_jax.models.running_bias import BiasState, RunningBias


@dataclasses.dataclass(frozen=True)
class History:
    """The counters of all users and items at one moment. Never changed in place.

    Attributes:
      user_count, item_count: int64 [U], [I], numbers of interactions so far.
      user_last, item_last: float64 [U], [I], times of the last interactions in seconds; NaN before the first.
      bias: the sums of the running bias.
    """

    user_count: np.ndarray
    item_count: np.ndarray
    user_last: np.ndarray
    item_last: np.ndarray
    bias: BiasState

    @classmethod
    def start(cls, num_users: int, num_items: int) -> History:
        """Return the counters before the first interaction."""
        return cls(
            np.zeros(num_users, np.int64),
            np.zeros(num_items, np.int64),
            np.full(num_users, np.nan),
            np.full(num_items, np.nan),
            BiasState.zeros(num_users, num_items),
        )


class Before(NamedTuple):
    """The counters just before each of n interactions.

    Attributes:
      counts: float32 [n, 2], numbers of earlier interactions of the user and of the item.
      gap: float32 [n, 2], seconds since the last of them, at least 0; NaN if there is none.
      bias: float32 [n, 2], the running biases of the user and of the item, in rating units.
    """

    counts: np.ndarray
    gap: np.ndarray
    bias: np.ndarray


def _side(
    ids: np.ndarray, timestamp: np.ndarray, count: np.ndarray, last: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return, for users or items, the count and the last time before each interaction, and both tables afterwards."""
    previous, _ = previous_and_next(ids, len(count))
    last_before = np.where(previous >= 0, timestamp[previous], last[ids])
    last_after = last.copy()
    last_after[ids] = timestamp  # the last of repeated ids wins: NumPy assigns in order
    return count[ids] + occurrences(ids), last_before, count + np.bincount(ids, minlength=len(count)), last_after


def advance(events: Events, history: History, bias: RunningBias) -> tuple[Before, History]:
    """Replay interactions in their order.

    Args:
      events: n interactions.
      history: the counters before the first one.
      bias: the constants of the running bias.

    Returns:
      The counters before each interaction, and after the last one.
    """
    if not len(events):
        return Before(*np.zeros((3, 0, 2), np.float32)), history
    user_count, user_last, user_counts, user_lasts = _side(
        events.user, events.timestamp, history.user_count, history.user_last
    )
    item_count, item_last, item_counts, item_lasts = _side(
        events.item, events.timestamp, history.item_count, history.item_last
    )
    sums, terms = bias.run(events.user, events.item, events.rating, history.bias)
    last = np.stack([user_last, item_last], 1)
    before = Before(
        counts=np.stack([user_count, item_count], 1).astype(np.float32),
        gap=np.maximum(events.timestamp[:, None] - last, 0).astype(np.float32),
        bias=np.stack([terms.user_bias, terms.item_bias], 1).astype(np.float32),
    )
    return before, History(user_counts, item_counts, user_lasts, item_lasts, sums)


def tables(history: History, bias: RunningBias) -> tuple[np.ndarray, np.ndarray]:
    """Return the inputs of a head other than the states: (running bias, log1p count), float32 [U, 2] and [I, 2]."""

    def side(sums: np.ndarray, rated: np.ndarray, shrinkage: float, count: np.ndarray) -> np.ndarray:
        mean = np.divide(sums, rated + shrinkage, out=np.zeros(len(sums)), where=rated > 0)
        return np.stack([mean, np.log1p(count)], 1).astype(np.float32)

    sums = history.bias
    user = side(sums.user_sum, sums.user_count, bias.user_shrinkage, history.user_count)
    return user, side(sums.item_sum, sums.item_count, bias.item_shrinkage, history.item_count)

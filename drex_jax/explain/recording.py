"""A stream replayed once, with everyone's row and counters just before each of its interactions.

It takes 8 E bytes an interaction: 270 for states of 32.

Letters: n interactions of the stream, U users, I items, E row size, k interactions or owners asked for.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from drex_jax.common.streams import occurrences, previous_and_next
from drex_jax.data.events import Events
from drex_jax.models.drex.counters import History
from drex_jax.models.drex.replay import Continuation
from drex_jax.models.protocol import States
from drex_jax.models.running_bias import BiasState


class Counters(NamedTuple):
    """One side's counters just before each of k interactions: what `History` keeps of it, [k] each."""

    interactions: np.ndarray
    last: np.ndarray
    rating_sum: np.ndarray
    rating_count: np.ndarray


@dataclasses.dataclass(frozen=True)
class Side:
    """The users, or the items, of a recorded stream.

    Attributes:
      number: int32 [n], whom each interaction is of.
      rows: float32 [n, E], its row just before it.
      counters: just before it, [n] each.
      now: float32 [U, E] (or [I, E]), everyone's row after the last.
      newcomer: float32 [E], the row of somebody never met.
      order: int64 [n], the interactions by owner, in time order within.
      begin: int64 [U + 1], where each owner's begin in `order`.
    """

    number: np.ndarray
    rows: np.ndarray
    counters: Counters
    now: np.ndarray
    newcomer: np.ndarray
    order: np.ndarray
    begin: np.ndarray

    def met(self, owner: int, moment: int) -> np.ndarray:
        """int64: the owner's interactions before interaction `moment` of the stream, in order; a newcomer has none."""
        if not 0 <= owner < len(self.now):
            return self.order[:0]
        own = self.order[self.begin[owner] : self.begin[owner + 1]]
        return own[: np.searchsorted(own, moment)]

    def row(self, owner: int, moment: int) -> np.ndarray:
        """float32 [E]: the owner's row just before interaction `moment` of the stream; n: after the last."""
        if not 0 <= owner < len(self.now):
            return self.newcomer
        following = self.begin[owner] + len(self.met(owner, moment))
        return self.rows[self.order[following]] if following < self.begin[owner + 1] else self.now[owner]


class Recording(NamedTuple):
    """A stream and its two sides."""

    events: Events
    user: Side
    item: Side

    @classmethod
    def of(cls, continuation: Continuation, params: dict[str, Any], events: Events) -> Recording:
        """Replays n > 0 interactions from everyone's first row on.

        Args:
          continuation: of the run's model.
          params: its parameters; whoever has an offset there begins with it.
          events: the whole stream, numbered as the run's rows are.
        """
        refiner = continuation.refiner
        sizes = events.num_users, events.num_items
        start: Any = (
            np.asarray(refiner.rows(params, side, np.zeros((size, 2), np.float32)))
            for side, size in zip(("user", "item"), sizes, strict=True)
        )
        carry = States(*start)
        past = History.start(*sizes)
        replayed = continuation.run(carry, past, events, sizes)  # nobody is new: all have their first row
        bias = refiner.options.bias
        _, terms = bias.run(events.user, events.item, events.rating, BiasState.zeros(*sizes))
        sides = []
        for number, rows, now, newcomer, biases, rated, shrinkage in zip(
            (events.user, events.item),
            (replayed.user, replayed.item),
            replayed.carry,
            refiner.newcomers(params, carry),
            (terms.user_bias, terms.item_bias),
            (terms.user_count, terms.item_count),
            (bias.user_shrinkage, bias.item_shrinkage),
            strict=True,
        ):
            previous, _ = previous_and_next(number, len(now))
            last = np.where(previous >= 0, events.timestamp[previous], np.nan)
            counters = Counters(occurrences(number), last, biases * (rated + shrinkage), rated)
            begin = np.concatenate([[0], np.cumsum(np.bincount(number, minlength=len(now)))])
            order = np.argsort(number, kind="stable")
            sides.append(Side(number, rows, counters, np.asarray(now), np.asarray(newcomer), order, begin))
        return cls(events, *sides)

    def past(self, users: np.ndarray, items: np.ndarray) -> tuple[States, History]:
        """Rows and counters of a world of copies: of the users of interactions `users` [k], each as it was just before
        its own, and of the items of interactions `items`.
        """
        user, item = (
            Counters(*(column[rows] for column in side.counters))
            for side, rows in ((self.user, users), (self.item, items))
        )
        sums = BiasState(user.rating_sum, user.rating_count, item.rating_sum, item.rating_count)
        carry: Any = States(self.user.rows[users], self.item.rows[items])  # pyright: ignore[reportArgumentType]
        return carry, History(user.interactions, item.interactions, user.last, item.last, sums)

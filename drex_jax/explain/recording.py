"""A recording of a stream: the rows and counters of its user and item just before each interaction.

It takes 8 E bytes for each interaction, 270 bytes for states of size 32.

Letters: n interactions of the stream, U users, I items, E row size, k requested interactions or owners.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from drex_jax.common.side import Side
from drex_jax.common.streams import occurrences, previous_and_next
from drex_jax.data.events import Events
from drex_jax.models.drex.counters import History
from drex_jax.models.drex.replay import Continuation
from drex_jax.models.protocol import States
from drex_jax.models.running_bias import BiasState


class Counters(NamedTuple):
    """The counters of users (or items) just before each of k interactions, as in `History`, [k] each."""

    interactions: np.ndarray
    last: np.ndarray
    rating_sum: np.ndarray
    rating_count: np.ndarray


@dataclasses.dataclass(frozen=True)
class RecordedSide:
    """The users, or the items, of a recorded stream.

    Attributes:
      number: int32 [n], the user (or item) of each interaction.
      rows: float32 [n, E], its row just before the interaction.
      counters: its counters just before the interaction, [n] each.
      now: float32 [U, E] (or [I, E]), all rows after the last interaction.
      newcomer: float32 [E], the cold-start row.
      order: int64 [n], the interactions sorted by owner, in time order for each owner.
      begin: int64 [U + 1], begin of each owner's interactions in `order`.
    """

    number: np.ndarray
    rows: np.ndarray
    counters: Counters
    now: np.ndarray
    newcomer: np.ndarray
    order: np.ndarray
    begin: np.ndarray

    def met(self, owner: int, moment: int) -> np.ndarray:
        """Return the owner's interactions before interaction `moment` of the stream, int64; none for a cold start."""
        if not 0 <= owner < len(self.now):
            return self.order[:0]
        rows = self.order[self.begin[owner] : self.begin[owner + 1]]
        return rows[: np.searchsorted(rows, moment)]

    def row(self, owner: int, moment: int) -> np.ndarray:
        """Return the owner's row just before interaction `moment` of the stream (n: after the last), float32 [E]."""
        if not 0 <= owner < len(self.now):
            return self.newcomer
        following = self.begin[owner] + len(self.met(owner, moment))
        return self.rows[self.order[following]] if following < self.begin[owner + 1] else self.now[owner]


class Recording(NamedTuple):
    """A stream with its users and items."""

    events: Events
    user: RecordedSide
    item: RecordedSide

    @classmethod
    def of(cls, continuation: Continuation, params: dict[str, Any], events: Events) -> Recording:
        """Replay n > 0 interactions, starting from the initial rows of all users and items.

        Args:
          continuation: the replay of the run's model.
          params: parameters of the model; users and items with an offset there start with it.
          events: the whole stream, with the user and item numbers of the run.
        """
        model = continuation.model
        sizes = events.num_users, events.num_items
        start: Any = (
            np.asarray(model.rows(params, side, np.zeros((size, 2), np.float32)))
            for side, size in zip(Side, sizes, strict=True)
        )
        states = States(*start)
        past = History.start(*sizes)
        replayed = continuation.run(states, past, events, sizes)  # all users and items have a row already
        bias = model.options.bias
        _, terms = bias.run(events.user, events.item, events.rating, BiasState.zeros(*sizes))
        sides = []
        for number, rows, now, newcomer, biases, rated, shrinkage in zip(
            (events.user, events.item),
            (replayed.user, replayed.item),
            replayed.states,
            model.cold_start(params, states),
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
            sides.append(RecordedSide(number, rows, counters, np.asarray(now), np.asarray(newcomer), order, begin))
        return cls(events, *sides)

    def past(self, users: np.ndarray, items: np.ndarray) -> tuple[States, History]:
        """Return the rows and counters of copies, each just before an interaction.

        Args:
          users: int [k], interactions; their users are copied.
          items: int [k], interactions; their items are copied.
        """
        user, item = (
            Counters(*(column[rows] for column in side.counters))
            for side, rows in ((self.user, users), (self.item, items))
        )
        sums = BiasState(user.rating_sum, user.rating_count, item.rating_sum, item.rating_count)
        states: Any = States(self.user.rows[users], self.item.rows[items])  # pyright: ignore[reportArgumentType]
        return states, History(user.interactions, item.interactions, user.last, item.last, sums)

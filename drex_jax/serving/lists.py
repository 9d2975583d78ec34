"""Lists of recommendations, made of a run as it is at one moment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.common.padding import power_of_two
from drex_jax.models import scoring
from drex_jax.models.protocol import Model, Params, States
from drex_jax.serving.interaction_log import InteractionLog
from drex_jax.serving.rows import ids_of

SCORES = 1 << 24  # that exist at a time
USERS = 1024  # at the most whose lists are made at a time


class Recommendation(NamedTuple):
    """One line of a list.

    Attributes:
      item: its id.
      score: of the model's ranking, higher is better; only its order within a list has a meaning.
    """

    item: str
    score: float


class Lists(NamedTuple):
    """The state that lists are made of; later updates do not change it. Letters: n users, I items, E row size.

    Attributes:
      model: the run's model.
      params: its parameters.
      states: all rows, device arrays.
      cold_start: the row [E] of an unknown user.
      log: what has happened, and since then perhaps more.
      length: how many of its rows had happened.
      num_items: how many items there were.
      met_alone: only items that somebody had met may be recommended.
    """

    model: Model
    params: Params
    states: States
    cold_start: jax.Array
    log: InteractionLog
    length: int
    num_items: int
    met_alone: bool

    def excluded(self, candidates: Iterable[str | int] | None) -> np.ndarray:
        """Return bool [I]: the items that may not be recommended when only `candidates` may; None allows all.

        Raises:
          UserError: they are no list of ids, or one is unknown.
        """
        excluded = np.zeros(self.num_items, bool)
        if self.met_alone:
            excluded = np.bincount(self.log.item[: self.length], minlength=len(excluded)) == 0
        if candidates is None:
            return excluded
        wanted = {item: self.log.items.number(item) for item in ids_of("candidates", candidates)}
        unknown = next((item for item, number in wanted.items() if number < 0), None)
        if unknown is not None:
            raise UserError(f"candidates: the run has no item {unknown}")
        others = np.ones(len(excluded), bool)
        others[list(wanted.values())] = False
        return excluded | others

    def of(self, users: np.ndarray, k: int, exclude_seen: bool, excluded: np.ndarray) -> Iterator[list[Recommendation]]:
        """Yield the lists of users by number, int [n]; -1: unknown."""
        block, never = min(USERS, max(1, SCORES // self.num_items), len(users)), jnp.asarray(excluded)
        for begin in range(0, len(users), max(block, 1)):
            numbers = users[begin : begin + block]
            padded = np.pad(numbers, (0, block - len(numbers)), constant_values=-1)
            seen = self._seen(padded if exclude_seen else np.full(block, -1))
            rows = scoring.gather_user_rows(self.states.user, self.cold_start, padded)
            found = scoring.best(self.model, self.params, rows, self.states.item, seen, never, k)
            items, scores = (np.asarray(each) for each in found)
            for row in range(len(numbers)):
                yield self.named(items[row], scores[row])

    def of_row(self, row: np.ndarray | jax.Array, k: int, excluded: np.ndarray) -> list[Recommendation]:
        """Return the list of a user with a row [E]."""
        no_items = np.full((1, 1), self.num_items, np.int32)
        user = scoring.gather_user_rows(jnp.asarray(row)[None], self.cold_start, np.zeros(1, np.int64))
        found = scoring.best(self.model, self.params, user, self.states.item, no_items, jnp.asarray(excluded), k)
        items, scores = (np.asarray(each) for each in found)
        return self.named(items[0], scores[0])

    def named(self, items: np.ndarray, scores: np.ndarray) -> list[Recommendation]:
        """Name the items of a list [k]; those excluded, whose score is -inf, are left out."""
        pairs = zip(items.tolist(), scores.tolist(), strict=True)
        return [Recommendation(self.log.items.name(item), score) for item, score in pairs if score > -np.inf]

    def _seen(self, users: np.ndarray) -> np.ndarray:
        """Return the items that each user has seen, int32 [n, most], padded with I; user -1 has none."""
        owned = (self.log.rows_of_user(user) for user in users.tolist())
        lists = [self.log.item[rows[: np.searchsorted(rows, self.length)]] for rows in owned]
        most = power_of_two(max(map(len, lists)))
        return np.stack([np.pad(items, (0, most - len(items)), constant_values=self.num_items) for items in lists])

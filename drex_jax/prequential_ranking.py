"""Ranks of interactions' items at their moments, each interaction scored before it is learned from.

Letters: n interactions, b of a block, I items, E row size.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.data.modalities import Events
from drex_jax.models.protocol import Compile, Params, Trace
from drex_jax.order import neighbours
from drex_jax.progress import iterated


class PrequentialRanking:
    """Ranks interactions among the items met before each of them, less what the user touched before."""

    def __init__(
        self,
        rank: Any,
        events: Events,
        first: np.ndarray,
        mask: str,
        train_end: int,
        block: int,
        compile_program: Compile,
    ):
        """Prepares every user's past.

        Args:
          rank: of the model (`drex_jax.models.protocol.Model.rank`).
          events: in the order of learning.
          first: int [I], the first interaction of each item; the number of interactions where there is none.
          mask: `strict` leaves out what the user touched before the moment, `mmrec` what it touched in train.
          train_end: number of train interactions.
          block: interactions scored at once, which the number of devices divides.
          compile_program: makes a compiled function of a program over the devices.
        """
        self._events, self._first, self._mask, self._train_end = events, first, mask, train_end
        self._block, self._past = block, _Past(events)
        self._moment_ranks = compile_program(partial(_moment_ranks, rank))

    def ranks(self, params: Params, table: jax.Array, trace: Trace, rows: slice) -> np.ndarray:
        """int64 [n]: the rank of each interaction's item at its moment among the items met before it; 0: a miss.

        A block's users are scored against the item table at the block's start; then the scores of items that changed
        inside the block before a user's moment are replaced by those of their rows at that moment.

        Args:
          params: of the model.
          table: [I, E], item rows before the first of the interactions.
          trace: of the interactions.
          rows: which ones they are.
        """
        events, block = self._events, self._block
        n = rows.stop - rows.start
        item = events.item[rows]
        padding = -n % block  # one shape for every block
        user_before, item_after = (
            jnp.pad(values, ((0, padding), (0, 0))) for values in (trace.user_before, trace.item_after)
        )
        ranks = []
        for begin in iterated(range(0, n, block), "ranking", "blocks of moments"):
            size = min(block, n - begin)
            chosen = slice(begin, begin + size)
            moments = rows.start + np.arange(begin, begin + size)
            touched_before = moments if self._mask == "strict" else np.full(size, self._train_end)
            masked = self._past.mask(events.user[moments], touched_before)
            candidates = (self._first[None, :] < moments[:, None]) & ~masked  # [b, I]
            _, following = neighbours(item[chosen], events.num_items)  # within the block; b where there is none
            found, table = self._moment_ranks(
                params,
                user_before,
                item_after,
                np.int32(begin),
                table,
                np.pad(item[chosen], (0, block - size)),
                np.pad(np.where(following < size, following, block), (0, block - size), constant_values=-1),
                np.pad(candidates, ((0, block - size), (0, 0))),
            )
            ranks.append(np.asarray(found)[:size])
        return np.concatenate(ranks).astype(np.int64)


class _Past:
    """Which items each user touched before a moment: the interactions by user, in order."""

    def __init__(self, events: Events):
        self._num_items, self._n = events.num_items, len(events)
        self._order = np.argsort(events.user, kind="stable")
        self._keys = events.user[self._order].astype(np.int64) * (self._n + 1) + self._order
        self._item = events.item[self._order]

    def mask(self, users: np.ndarray, moments: np.ndarray) -> np.ndarray:
        """Bool [b, I]: what users [b] touched in interactions numbered below moments [b]."""
        users = users.astype(np.int64)
        begin = np.searchsorted(self._keys, users * (self._n + 1))
        end = np.searchsorted(self._keys, users * (self._n + 1) + moments)
        counts = end - begin
        rows = np.repeat(np.arange(len(users)), counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        masked = np.zeros((len(users), self._num_items), bool)
        masked[rows, self._item[np.repeat(begin, counts) + within]] = True
        return masked


def _scores(rank: Any, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
    """Scores [b, m] in full precision, so that no accelerator's short products make ties; NaN stands last."""
    with jax.default_matmul_precision("highest"):
        scores = rank(params, user, item)
    return jnp.where(jnp.isnan(scores), -jnp.inf, scores)


def _moment_ranks(rank, axis, params, user_before, item_after, begin, table, item, following, candidates):
    """The rank of each interaction's own item at its moment, int32 [b], and the item rows after the block.

    `user_before`, `item_after` [n, E]: rows of users before and of items after each interaction, of which the block's
    start at `begin`; `table` [I, E]: item rows at the block's start; `item` int [b]; `following` int [b]: the item's
    next interaction in the block, b where there is none, -1 in padding; `candidates` bool [b, I].
    """
    size = len(item)
    user, item_after = (jax.lax.dynamic_slice_in_dim(rows, begin, size) for rows in (user_before, item_after))
    k, own_item = axis.own(jnp.arange(size))[:, None], axis.own(item)[:, None]
    user, candidates = axis.own(user), axis.own(candidates)
    scores = _scores(rank, params, user, table)  # [own b, I]
    changed = _scores(rank, params, user, item_after)  # [own b, b]: user of row k, item as interaction j left it
    j = jnp.arange(size)[None, :]
    current = (j < k) & (k <= following[None, :])  # j is the item's last interaction before k
    columns = jnp.where(current, item[None, :], table.shape[0])
    scores = scores.at[jnp.arange(len(user))[:, None], columns].set(changed, mode="drop")
    own = jnp.take_along_axis(scores, own_item, axis=1)
    ahead = candidates & (scores >= own) & (jnp.arange(table.shape[0])[None, :] != own_item)
    inside = jnp.take_along_axis(candidates, own_item, axis=1)[:, 0] & (own[:, 0] > -jnp.inf)
    table = table.at[jnp.where(following == size, item, table.shape[0])].set(item_after, mode="drop")
    return axis.everyone(jnp.where(inside, 1 + ahead.sum(1), 0)), table

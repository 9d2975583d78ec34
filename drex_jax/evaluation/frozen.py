"""Ranks of relevant items among the whole catalogue, for rows of users and items that stand still.

Nothing is sorted: the rank of an item is one more than the number of items that score as high, so a block of users
costs one product with the item table and one pass over the scores for each relevant item. The exclusions of a user
(what is masked, and the other relevant items) are counted by their own few scores and subtracted. A block is scored a
chunk of rows at a time, so that scores never leave the caches of a CPU.

Letters: L lists, m relevant pairs, I items, C candidates, b rows of a chunk, S slots of a row, X exclusions of a chunk.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.common.progress import iterated
from drex_jax.devices.axis import Axis
from drex_jax.models.materialize import materialize_scores
from drex_jax.models.protocol import Compile, Params, States, compile_alone

PRODUCT_COST = 2  # a row of scores costs about as much as comparing it with so many relevant items
MOST_SLOTS = 64
CHUNK_BYTES = 2 << 20  # of scores: what leaves a CPU's caches costs a page fault every 4 KiB, too
LEAST_ROWS = 16  # of a chunk, however large the catalogue: products with fewer are slow


class FrozenRanking:
    """The full ranking of some users' relevant items. What does not depend on the model's rows is prepared once.

    Scores take 4 b C bytes a device, with b at most `block` rows and what `CHUNK_BYTES` holds, but at least
    `LEAST_ROWS`.

    Attributes:
      users: int [L], the user of each list, ascending.
      lists: int [m], the list of each relevant pair, ascending.
      items: int [m], the item of each.
      num_candidates: C.
    """

    def __init__(
        self,
        rank: Any,
        relevant: tuple[np.ndarray, np.ndarray],
        masked: tuple[np.ndarray, np.ndarray],
        candidates: np.ndarray,
        block: int = 256,
        devices: int = 1,
        compile_program: Compile = compile_alone,
    ):
        """Prepare lists and blocks.

        Args:
          rank: of the model (`drex_jax.models.protocol.Model.rank`).
          relevant: users and items, int [n] each, of which every user has a list; pairs may repeat.
          masked: users and items, int [n] each: what is no candidate for a user.
          candidates: bool [I], the candidates of all.
          block: rows scored at once, at the most.
          devices: number of devices, which share a block.
          compile_program: makes a compiled function of a program over them.
        """
        num_items = len(candidates)
        pairs, hidden = (np.unique(user.astype(np.int64) * num_items + item) for user, item in (relevant, masked))
        owner, item = np.divmod(pairs, num_items)
        self.items = item
        self.users, self.lists = np.unique(owner, return_inverse=True)
        self.num_candidates = int(candidates.sum())
        self._candidates = None if candidates.all() else np.flatnonzero(candidates)
        column = np.cumsum(candidates) - 1  # of each item among the candidates

        self._hittable = candidates[item] & ~np.isin(pairs, hidden, assume_unique=True)  # [m]; the others are misses
        pairs, owner, item = pairs[self._hittable], owner[self._hittable], item[self._hittable]
        users, begins, counts = np.unique(owner, return_index=True, return_counts=True)
        slots = _slots(counts)
        rows_each = -(-counts // slots)
        row_begins = np.cumsum(rows_each) - rows_each
        place = np.arange(len(pairs)) - np.repeat(begins, counts)  # of a pair among its user's
        self._row = np.repeat(row_begins, counts) + place // slots
        self._slot = place % slots
        row_user = np.repeat(users, rows_each)
        items = np.zeros((len(row_user), slots), np.int32)
        items[self._row, self._slot] = column[item]

        hidden_owner, hidden_item = np.divmod(hidden, num_items)
        excluded = np.union1d(hidden[candidates[hidden_item] & np.isin(hidden_owner, users)], pairs)
        of, item = np.divmod(excluded, num_items)
        first, last = (np.searchsorted(of, row_user, side) for side in ("left", "right"))
        ends = np.cumsum(last - first)  # of each row's exclusions among all
        where = np.arange(ends[-1] if len(ends) else 0) + np.repeat(last - ends, last - first)
        self._blocks = _Blocks(row_user, items, ends, column[item[where]], block, self.num_candidates, devices)
        self._program = compile_program(partial(_compare, rank))

    def ranks(self, params: Params, states: States) -> np.ndarray:
        """Return the rank of each relevant pair among its list's candidates, int64 [m].

        The m-th best relevant item of a list stands behind the m - 1 better ones and behind all other candidates that
        score as high (ties are broken against the model). 0: a miss, because the item is no candidate or its score is
        NaN or minus infinity.
        """
        item = states.item if self._candidates is None else states.item[self._candidates]
        own, ahead = self._blocks.run(partial(self._program, params, states.user, item))
        own, ahead = own[self._row, self._slot], ahead[self._row, self._slot]
        lists = self.lists[self._hittable]
        order = np.lexsort((-own, lists))  # NaN last
        begins = np.searchsorted(lists, lists)
        found = np.zeros(len(own), np.int64)
        found[order] = np.arange(len(own)) - begins + 1  # `lists` is ascending, so `begins` is that of `order` too
        ranks = np.zeros(len(self.lists), np.int64)
        ranks[self._hittable] = np.where(own > -np.inf, found + ahead, 0)
        return ranks


class _Blocks:
    """Rows in blocks of one shape: some chunks of rows and their exclusions for each device."""

    def __init__(
        self,
        user: np.ndarray,
        items: np.ndarray,
        ends: np.ndarray,
        excluded: np.ndarray,
        block: int,
        num_candidates: int,
        devices: int,
    ):
        """`user` [n], `items` [n, S]: of each row; `excluded` [X in all], of which row k's end before `ends[k]`."""
        self._user, self._items, self._excluded = user, items, excluded
        own = -(-min(block, max(len(user), 1)) // devices)  # rows of a block, a device
        self._size = min(own, max(LEAST_ROWS, CHUNK_BYTES // (4 * max(num_candidates, 1))))  # rows of a chunk
        self._chunks = -(-own // self._size) * devices  # of a block
        self._begins = begins = np.concatenate([[0], ends])
        average = int(begins[-1]) * self._size // max(len(user), 1)
        self._capacity = max(2 * average, int(np.diff(begins).max(initial=0)), 1)  # exclusions of a chunk
        self._cuts = [0]
        while self._cuts[-1] < len(user):
            begin = self._cuts[-1]
            fits = int(np.searchsorted(begins, begins[begin] + self._capacity, "right")) - 1
            self._cuts.append(min(begin + self._size, fits, len(user)))

    def _block(self, first: int) -> tuple[np.ndarray, ...]:
        """Return what a program takes of the chunks from number `first` on; see `_compare`."""
        shape = self._chunks, self._size
        user, item = np.zeros(shape, np.int32), np.zeros((*shape, self._items.shape[1]), np.int32)
        row, column = (np.zeros((self._chunks, self._capacity), np.int32) for _ in range(2))
        for number, (begin, end) in enumerate(itertools.pairwise(self._cuts[first : first + self._chunks + 1])):
            user[number, : end - begin], item[number, : end - begin] = self._user[begin:end], self._items[begin:end]
            exclusions = self._begins[begin : end + 1]
            count = exclusions[-1] - exclusions[0]
            row[number, :count] = np.repeat(np.arange(end - begin), np.diff(exclusions))
            column[number, :count] = self._excluded[exclusions[0] : exclusions[-1]]
        return user, item, row, column

    def run(self, program: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return own scores float32 [n, S] and how many others score as high int64 [n, S], a block late."""
        own, ahead = np.zeros(self._items.shape, np.float32), np.zeros(self._items.shape, np.int64)
        waiting: tuple[int, Any] | None = None
        for first in iterated(range(0, len(self._cuts) - 1, self._chunks), "ranking", "blocks of users"):
            results = program(*self._block(first))
            if waiting:
                self._collect(*waiting, own, ahead)
            waiting = first, results
        if waiting:
            self._collect(*waiting, own, ahead)
        return own, ahead

    def _collect(self, first: int, results: Any, own: np.ndarray, ahead: np.ndarray) -> None:
        """Write a block's results to its rows."""
        scores, counts, excluded = (np.asarray(result) for result in results)
        for number, (begin, end) in enumerate(itertools.pairwise(self._cuts[first : first + self._chunks + 1])):
            begins = self._begins[begin : end + 1] - self._begins[begin]
            mine, row = scores[number, : end - begin], np.repeat(np.arange(end - begin), np.diff(begins))
            as_high = excluded[number, : begins[-1], None] >= mine[row]  # [X, S]
            own[begin:end] = mine
            ahead[begin:end] = counts[number, : end - begin] - np.add.reduceat(as_high, begins[:-1], 0, np.int64)


def _slots(counts: np.ndarray) -> int:
    """Return how many relevant items a row has room for, at the least cost; users with more take several rows."""
    sizes = np.arange(1, min(int(counts.max(initial=1)), MOST_SLOTS) + 1)
    return int(sizes[np.argmin([(-(-counts // size)).sum() * (PRODUCT_COST + size) for size in sizes])])


def _compare(
    rank: Any,
    axis: Axis,
    params: Params,
    user_rows: jax.Array,
    item_rows: jax.Array,
    user: jax.Array,
    item: jax.Array,
    row: jax.Array,
    column: jax.Array,
) -> tuple[jax.Array, ...]:
    """Return for G chunks: scores of the rows' own items [G, b, S], how many candidates score as high [G, b, S],
    and scores of exclusions [G, X].

    `user_rows` [U, E], `item_rows` [C, E]; `user` int [G, b]; `item` int [G, b, S]; `row`, `column` int [G, X]: the
    row, of those of its chunk, and the candidate of each exclusion.
    """

    def compare(chunk: tuple[jax.Array, jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        user, item, row, column = chunk
        with jax.default_matmul_precision("highest"):  # so that no accelerator's short products make ties
            scores = rank(params, user_rows[user], item_rows)
        scores = materialize_scores(scores, user[0])
        own = jnp.take_along_axis(scores, item, axis=1)
        as_high = scores[:, None, :] >= own[:, :, None]  # [b, S, C] that is never stored; false for NaN
        ahead = as_high.sum(2, dtype=jnp.float32).astype(jnp.int32)  # exact below 2^24; CPUs add floats many at a time
        return own, ahead, scores[row, column]

    found = jax.lax.map(compare, tuple(axis.shard(rows) for rows in (user, item, row, column)))
    return tuple(axis.all_gather(values) for values in found)

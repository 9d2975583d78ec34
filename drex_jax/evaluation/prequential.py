"""Ranks of interactions' items at their moments, each interaction scored before it is learned from.

Nothing is sorted, and no mask of the catalogue is made: users are scored against the item table as it was when their
block began, the scores of items that changed inside the block before the user's moment are replaced, and of the items
met so far those that score as high as the own one are counted. What a user touched is little: it is counted by itself,
and subtracted. The users of a block are scored a chunk at a time, so that scores never leave the caches of a CPU.

Letters: n interactions; S interactions of a block; G chunks of it, each of R judged interactions and X exclusions;
I items, E row size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.common.progress import progress_bar
from drex_jax.common.streams import previous_and_next
from drex_jax.data.events import Events
from drex_jax.devices.axis import Axis
from drex_jax.models.protocol import Compile, Params, Trace

SPAN = 2  # interactions of a chunk for each that is judged, at the most
CHUNK_BYTES = 2 << 20  # of scores: what leaves a CPU's caches costs a page fault every 4 KiB, too
LEAST_ROWS = 16  # of a chunk, however large the catalogue


class Chunks(NamedTuple):
    """The judged interactions of a block.

    Attributes:
      place: int32 [G, R], of each in the block; one behind its end in padding.
      own: int32 [G, R], its item.
      row, column: int32 [G, X], the judged interaction and the item of each exclusion, which the user touched before or
        is the own one; R in padding.
    """

    place: np.ndarray
    own: np.ndarray
    row: np.ndarray
    column: np.ndarray


class Block(NamedTuple):
    """Consecutive interactions, of which some are judged; of one shape for all blocks.

    Attributes:
      item: int32 [S], of each interaction.
      following: int32 [S], the place of its item's next interaction in the block; where there is none, how many there
        are; -1 in padding.
      replaced: int32 [S], the item where the interaction is its last in the block, otherwise I.
      chunks: of the judged ones.
    """

    item: np.ndarray
    following: np.ndarray
    replaced: np.ndarray
    chunks: Chunks


class PrequentialRanking:
    """Ranks interactions among the items met before each of them, less what the user touched before.

    Scores take 4 R (I + S) bytes a device, with R at most `block` and so many that `CHUNK_BYTES` holds 4 R I, but at
    least `LEAST_ROWS`; S is about 2 `block`.
    """

    def __init__(
        self,
        rank: Any,
        events: Events,
        judged: np.ndarray,
        first: np.ndarray,
        mask: str,
        train_end: int,
        block: int,
        devices: int,
        compile_program: Compile,
    ):
        """Prepare every user's past.

        Args:
          rank: of the model (`drex_jax.models.protocol.Model.rank`).
          events: in the order of learning.
          judged: bool [n], which of them are ranked, where they come after train.
          first: int [I], the first interaction of each item; the number of interactions where there is none.
          mask: `strict` leaves out what the user touched before the moment, `mmrec` what it touched in train.
          train_end: number of train interactions.
          block: interactions judged against one item table, about.
          devices: number of devices, which share the chunks of a block.
          compile_program: makes a compiled function of a program over them.
        """
        self._events, self._first, self._past = events, first, _Past(events)
        fitting = max(LEAST_ROWS, CHUNK_BYTES // (4 * max(events.num_items, 1)))
        self._rows = min(fitting, -(-block // devices))
        self._chunks = -(-block // (self._rows * devices)) * devices
        self._span = SPAN * self._rows * self._chunks
        self._until = np.arange(len(events)) if mask == "strict" else np.full(len(events), train_end)
        self._judged = judged & (np.arange(len(events)) >= train_end)
        rows = np.flatnonzero(self._judged)
        self._exclusions = np.zeros(len(events), np.int64)  # how many each interaction brings
        self._exclusions[rows] = 1 + self._past.counts(events.user[rows], self._until[rows])
        average = int(self._exclusions.sum()) // max(len(rows), 1)
        self._capacity = max(int(self._exclusions.max(initial=1)), 2 * average * self._rows)
        self._program = compile_program(partial(_moment_ranks, rank))

    def ranks(self, params: Params, table: jax.Array, trace: Trace, rows: slice) -> np.ndarray:
        """Return each judged interaction's rank, int64 [m], among the items seen before its moment; 0 is a miss.

        Args:
          params: of the model.
          table: [I, E], item rows before the first of the interactions.
          trace: of the interactions.
          rows: which ones they are, none of them in train.
        """
        first = jnp.asarray(self._first, jnp.int32)
        user_before, item_after = (
            jnp.pad(values, ((0, self._span), (0, 0))) for values in (trace.user_before, trace.item_after)
        )  # room behind the last block
        ranks: list[np.ndarray] = []
        waiting: tuple[jax.Array, np.ndarray, np.ndarray] | None = None

        def collect(found: jax.Array, judged: np.ndarray, hittable: np.ndarray) -> None:
            ranks.append(np.where(hittable, np.asarray(found)[judged], 0))

        with progress_bar("ranking", rows.stop - rows.start, "moments") as bar:
            for cuts in self._blocks(rows):
                block, judged, hittable = self._block(cuts)
                here = np.array([cuts[0] - rows.start, cuts[0]], np.int32)
                found, table = self._program(params, user_before, item_after, first, table, here, block)
                if waiting:
                    collect(*waiting)  # the host works one block ahead
                waiting = found, judged, hittable
                bar.update(cuts[-1] - cuts[0])
        if waiting:
            collect(*waiting)
        return np.concatenate(ranks).astype(np.int64)

    def _blocks(self, rows: slice) -> Iterator[list[int]]:
        """Return for each block where its chunks begin and, last, where it ends."""
        cuts = [rows.start]
        judged, exclusions = (
            np.concatenate([[0], np.cumsum(values[rows], dtype=np.int64)])
            for values in (self._judged, self._exclusions)
        )
        while (begin := cuts[-1] - rows.start) < rows.stop - rows.start:
            end = min(
                rows.stop - rows.start,
                begin + SPAN * self._rows,
                int(np.searchsorted(judged, judged[begin] + self._rows, "right")) - 1,
                int(np.searchsorted(exclusions, exclusions[begin] + self._capacity, "right")) - 1,
            )
            cuts.append(rows.start + end)
            if len(cuts) > self._chunks:
                yield cuts
                cuts = [cuts[-1]]
        if len(cuts) > 1:
            yield cuts

    def _block(self, cuts: Sequence[int]) -> tuple[Block, np.ndarray, np.ndarray]:
        """A block; bool [G, R], where it has judged interactions; for each of these whether its item is a candidate."""
        item = self._events.item[cuts[0] : cuts[-1]]
        place = np.flatnonzero(self._judged[cuts[0] : cuts[-1]])
        moments, own = cuts[0] + place, item[place]
        row, column = self._past.touched(self._events.user[moments], self._until[moments])
        touched = np.zeros(len(place), bool)
        touched[row[column == own[row]]] = True
        row, column = np.concatenate([row, np.flatnonzero(~touched)]), np.concatenate([column, own[~touched]])
        _, following = previous_and_next(item, self._events.num_items)

        chunk = np.searchsorted(cuts, moments, "right") - 1
        slot = np.arange(len(place)) - np.searchsorted(chunk, chunk)
        order = np.argsort(chunk[row], kind="stable")
        row, column = row[order], column[order]
        number = np.arange(len(row)) - np.searchsorted(chunk[row], chunk[row])  # of each exclusion in its chunk

        judged = np.zeros((self._chunks, self._rows), bool)
        judged[chunk, slot] = True

        def filled(filler: int, size: int, places: Any, values: np.ndarray) -> np.ndarray:
            array = np.full((self._chunks, size), filler, np.int32)
            array[places] = values
            return array

        def behind(filler: int, values: np.ndarray) -> np.ndarray:
            return np.pad(values.astype(np.int32), (0, self._span - len(values)), constant_values=filler)

        rows, exclusions = (chunk, slot), (chunk[row], number)
        chunks = Chunks(
            filled(len(item), self._rows, rows, place),
            filled(0, self._rows, rows, own),
            filled(self._rows, self._capacity, exclusions, slot[row]),
            filled(0, self._capacity, exclusions, column),
        )
        replaced = np.where(following == len(item), item, self._events.num_items)
        block = Block(behind(0, item), behind(-1, following), behind(self._events.num_items, replaced), chunks)
        return block, judged, ~touched & (self._first[own] < moments)


class _Past:
    """Which items each user touched before a moment: the first interaction of each user and item, in order."""

    def __init__(self, events: Events):
        self._moments = len(events) + 1
        pairs = events.user.astype(np.int64) * events.num_items + events.item
        _, first = np.unique(pairs, return_index=True)
        keys = events.user[first].astype(np.int64) * self._moments + first
        order = np.argsort(keys)
        self._keys, self._item = keys[order], events.item[first[order]]

    def _spans(self, users: np.ndarray, moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        begin = users.astype(np.int64) * self._moments
        return np.searchsorted(self._keys, begin), np.searchsorted(self._keys, begin + moments)

    def counts(self, users: np.ndarray, moments: np.ndarray) -> np.ndarray:
        """Return int [b]: how many items users [b] touched in interactions numbered below moments [b]."""
        begin, end = self._spans(users, moments)
        return end - begin

    def touched(self, users: np.ndarray, moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (row, item), int [m] each: items that users [b] touched in interactions numbered below moments [b]."""
        begin, end = self._spans(users, moments)
        counts = end - begin
        ends = np.cumsum(counts)
        where = np.arange(counts.sum()) + np.repeat(begin - (ends - counts), counts)
        return np.repeat(np.arange(len(users)), counts), self._item[where]


def _moment_ranks(
    rank: Any,
    axis: Axis,
    params: Params,
    user_before: jax.Array,
    item_after: jax.Array,
    first: jax.Array,
    table: jax.Array,
    here: jax.Array,
    block: Any,
) -> tuple[jax.Array, jax.Array]:
    """The rank of each judged interaction's item, int32 [G, R], as if it were a candidate; item rows after the block.

    Args:
      rank: of the model.
      axis: of the devices that share the chunks.
      params: of the model.
      user_before: [n + S, E], rows of users before each interaction.
      item_after: [n + S, E], rows of items after it.
      first: int32 [I], the first interaction of each item.
      table: [I, E], item rows at the block's start.
      here: int32 [2], where the block begins among the n interactions and among all.
      block: a `Block` of device arrays.
    """
    span = len(block.item)
    after = jax.lax.dynamic_slice_in_dim(item_after, here[0], span)

    def chunk_ranks(chunk: Chunks) -> jax.Array:
        user, row = user_before[here[0] + chunk.place], jnp.arange(len(chunk.place))
        with jax.default_matmul_precision("highest"):  # so that no accelerator's short products make ties
            scores, changed = rank(params, user, table), rank(params, user, after)  # [R, I], [R, S]
        j, k = jnp.arange(span), chunk.place[:, None]
        current = (j < k) & (k <= block.following)  # j is the item's last interaction before k
        columns = jnp.where(current, block.item, table.shape[0])
        scores = scores.at[row[:, None], columns].set(changed, mode="drop")  # now stored: see `stored_scores`
        own = scores[row, chunk.own]
        met = first < here[1] + k  # [R, I] that is never stored
        ahead = (met & (scores >= own[:, None])).sum(1, dtype=jnp.float32)  # false for NaN; exact below 2^24
        as_high = scores.at[chunk.row, chunk.column].get(mode="fill", fill_value=-jnp.inf) >= own[chunk.row]
        ahead = ahead.at[chunk.row].add(-as_high.astype(jnp.float32), mode="drop")
        return jnp.where(own > -jnp.inf, 1 + ahead.astype(jnp.int32), 0)

    ranks = jax.lax.map(chunk_ranks, jax.tree.map(axis.shard, block.chunks))
    return axis.all_gather(ranks), table.at[block.replaced].set(after, mode="drop")

"""The stream of NARRE: batches of interactions with the reviews of their users and items.

Letters: U users, I items, B pairs of a batch, R reviews of a side, M distinct reviews, D size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.data.events import Events
from drex_jax.data.tokens import Tokens
from drex_jax.models.baselines.narre import NARRE, AllReviews, ReviewBatch, Reviews, attention_of
from drex_jax.models.lookup import LookupStream, unchanging
from drex_jax.models.protocol import Params, States
from drex_jax.models.source import Source
from drex_jax.text import batching


class ReviewStream(LookupStream):
    """The rated train interactions in batches; the interactions of each batch are drawn once."""

    model: NARRE

    def __init__(self, model: NARRE, events: Events, sizes: tuple[int, int, int], seed: int = 0, devices: int = 1):
        """Find the reviews of all users and items, and prepare batches.

        Args:
          model: the model.
          events: all interactions, in the order of learning, with texts.
          sizes: the numbers of train, validation and test interactions.
          seed: the seed of the order of the batches.
          devices: the number of devices; it divides the size of a batch.

        Raises:
          ValueError: train has no texts or no ratings.
        """
        super().__init__(model, unchanging(events, sizes))
        train = events[: sizes[0]]
        rated = np.flatnonzero(train.has_rating)
        if train.tokens is None or not train.tokens.lengths.any() or not len(rated):
            raise ValueError("there are no texts, or no ratings, in train")
        self.seed, self._events, self._tokens = seed, train, train.tokens
        self._sides, counts = (train.user, train.item), (events.num_users, events.num_items)
        known = [np.isin(np.arange(count), ids[rated])[:, None] for ids, count in zip(self._sides, counts, strict=True)]
        self._shares = [
            (1 / np.maximum(np.bincount(ids[rated], minlength=count), 1)).astype(np.float32)
            for ids, count in zip(self._sides, counts, strict=True)
        ]
        reviews = np.flatnonzero(train.tokens.lengths)
        self._latest = [
            _latest(reviews, ids[reviews], count, model.settings.reviews)
            for ids, count in zip(self._sides, counts, strict=True)
        ]
        steps = -(-len(rated) // model.settings.batch_size)
        self._groups = np.array_split(np.random.default_rng(0).permutation(rated), steps)
        self._size = -(-max(map(len, self._groups)) // devices) * devices
        needed = [_distinct(self._reviews_of(group)) for group in self._groups]
        tokens = train.tokens.lengths
        lengths = batching.bucket_lengths(int(tokens.max()))
        self._num_reviews = max(1, *map(len, needed))
        self._shapes = batching.fit([tokens[rows] for rows in needed], lengths, devices=devices)
        every = _distinct(self._latest)
        shapes = batching.fit([tokens[every]], lengths)
        places = (_places(table, every, len(every)) for table in self._latest)
        self._all = AllReviews(*known, *places, reviews=self._planned(every, len(every), shapes))
        self._final, self._read = jax.jit(model.final), jax.jit(model.read)

    def start(self, params: Params) -> States:
        """Return the rows of all users and items from all their train reviews."""
        return self._final(params, self._all)

    def renew(self, params: Params, carry: Any, epoch: int, key: jax.Array) -> tuple[()]:
        """Return (): nothing is carried from batch to batch."""
        return ()

    def steps_per_epoch(self) -> int:
        """Return the number of batches."""
        return len(self._groups)

    def batches(self, epoch: int) -> Iterator[ReviewBatch]:
        """Yield the batches in a random order; their sizes differ by at most one interaction."""
        events = self._events
        for number in np.random.default_rng((self.seed, epoch)).permutation(len(self._groups)):
            group = self._groups[number]
            rows = np.pad(group, (0, self._size - len(group)), mode="edge")
            tables = self._reviews_of(rows)
            needed = _distinct(tables)
            yield ReviewBatch(
                events.user[rows],
                events.item[rows],
                events.rating[rows] - np.float32(self.model.mean),
                np.arange(self._size) < len(group),
                np.stack([share[ids[rows]] for share, ids in zip(self._shares, self._sides, strict=True)], axis=1),
                _places(tables[0], needed, self._num_reviews),
                _places(tables[1], needed, self._num_reviews),
                self._planned(needed, self._num_reviews, self._shapes),
            )

    def review_attention(self, params: Params) -> tuple[Any, Any]:
        """Return the train reviews that represent users and items, with their attention weights.

        Returns:
          For users and for items, a pair (int64 [U, R], float32 [U, R]): the train interactions of the reviews, the
          latest first, with -1 as padding; and their weights, of sum 1 for everyone with a review.
        """
        everything = self._all
        scores = self._read(params, everything.reviews)[1]
        places = everything.of_user, everything.of_item
        weights = (np.asarray(attention_of(each, jnp.asarray(at))) for each, at in zip(scores, places, strict=True))
        users, items = zip(self._latest, weights, strict=True)
        return users, items

    def step_bytes(self) -> int:
        """Return an estimate of the bytes of a step: parameters, moments, gradient; reviews; pairs; a text chunk."""
        settings = self.model.settings
        params = jax.eval_shape(self.init, jax.random.key(0))
        tokens = sum(shape.chunks * shape.rows * shape.length for shape in self._shapes)
        pairs = 2 * self._size * settings.reviews * (settings.size + 4)
        chunk = 8 * batching.BUDGET * self.model.text_width
        of_params = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
        return 4 * (5 * of_params + tokens + 8 * self._num_reviews * settings.size + 2 * pairs + chunk)

    def _reviews_of(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return, for train interactions [B], the interactions [B, R] whose reviews represent each side; -1 is padding.

        They never include the interaction itself.
        """
        tables = (table[ids[rows]] for table, ids in zip(self._latest, self._sides, strict=True))
        return [np.where(table == rows[:, None], -1, table) for table in tables]

    def _planned(self, rows: np.ndarray, count: int, shapes: Sequence[batching.BucketShape]) -> Reviews:
        """Return the reviews of train interactions, padded to `count`."""
        tokens: Tokens = self._tokens
        text = batching.plan(tokens.ids, tokens.offsets, rows, shapes)
        text = text._replace(row=tuple(np.where(row < len(rows), row, count).astype(np.int32) for row in text.row))
        rows = np.pad(rows, (0, count - len(rows)))
        return Reviews(self._events.user[rows], self._events.item[rows], text)


def stream_of(source: Source) -> ReviewStream:
    """Return the stream of NARRE for a run."""
    (settings,), events, text = source.groups, source.events, source.settings.text
    assert source.vocabulary is not None  # the model needs texts
    mean = float(np.nanmean(source.train.rating, dtype=np.float64))
    encoder = len(source.vocabulary), text.width, text.dropout
    model = NARRE(mean, settings, *encoder, events.num_users, events.num_items)
    return ReviewStream(model, events, source.sizes, source.seed, len(source.context.devices))


def _latest(rows: np.ndarray, owner: np.ndarray, count: int, most: int) -> np.ndarray:
    """Return the last `most` of the ascending rows [n] of each owner (int [n]), the latest first.

    Returns:
      int64 [count, most]; -1 is padding.
    """
    order = np.argsort(owner, kind="stable")
    ends = np.cumsum(np.bincount(owner, minlength=count))
    back = ends[owner[order]] - 1 - np.arange(len(rows))  # number of later rows of the same owner
    kept = back < most
    table = np.full((count, most), -1, np.int64)
    table[owner[order][kept], back[kept]] = rows[order][kept]
    return table


def _distinct(tables: Sequence[np.ndarray]) -> np.ndarray:
    """Return the distinct interactions in the tables, ascending."""
    found = np.unique(np.concatenate([table.ravel() for table in tables]))
    return found[found >= 0]


def _places(table: np.ndarray, needed: np.ndarray, missing: int) -> np.ndarray:
    """Return the position of each interaction of a table in `needed`, int32, in the same shape; `missing` for -1."""
    return np.where(table >= 0, np.searchsorted(needed, table), missing).astype(np.int32)

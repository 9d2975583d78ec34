"""Ratings from reviews, in the manner of NARRE (Chen, Zhang, Liu and Ma, WWW 2018).

The rating of a user u and an item i is

    mean + b_u + b_i + w . ((q_u + X_u) * (p_i + Y_i))

where q and p are factors of ids and X_u is made of the reviews that u wrote: the attention to a review l, of item j, is
the softmax over u's reviews of h . relu(A O_l + B v_j + c), with O_l what the text encoder makes of its text and v_j a
vector of j's id; X_u is an affine function of the reviews' mean under it. Y_i is made likewise of the reviews that i
received, with vectors of those who wrote them.

What differs from the paper:

* The package's encoder (`drex_jax.text.encoder`: one convolution, attention pooling) of its subwords is in the place of
  a convolutional network with max-pooling over pretrained word vectors, and is trained from scratch.
* The review of an interaction is left out of both sides while that interaction is learned from. Public code leaves it
  in, so that the model reads the very opinion it is to predict and finds nothing of the kind on test. The rows of
  `start`, which evaluation asks, are of all train reviews; they flatter the pairs of train themselves.
* Both sides have the latest few reviews of train, no others; reviews of validation and test are read by nobody.
* Adam, and the L2 penalty of ridge regression on everyone's rows, in the place of one on weights alone.

Which interactions make a batch is drawn once, so that a batch's distinct reviews, each encoded once, fit arrays of one
shape; epochs differ in the order of the batches.

Letters: U users, I items, B pairs of a batch, R reviews of a side, M distinct reviews, D size.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.data.events import Events
from drex_jax.data.tokens import Tokens
from drex_jax.devices import dropout
from drex_jax.devices.axis import ALONE, Axis
from drex_jax.models import losses
from drex_jax.models.baselines.matrix_factorisation import product, products
from drex_jax.models.closed_form import Lookup, after, observe, unchanging
from drex_jax.models.protocol import Params, States, Trace
from drex_jax.text import batching
from drex_jax.text import encoder as text_encoder
from drex_jax.text.encoder import TextEncoder

SIDES = ("user", "item")
BLOCK = 4096  # rows of everyone that are made at a time


@dataclasses.dataclass(frozen=True)
class NarreOptions:
    """Sizes and weights; fields as in `config.narre`, and two that the data give.

    Attributes:
      mean: of the train ratings.
      encoder: of reviews; its features are D wide.
      reviews: R, the latest of a user, and of an item, that are read.
      batch_size: interactions a step, at the most.
      l2: weight of everyone's squared rows, beside the sum of squared errors over train.
      dropout: rate, of the product of a pair's rows.
      seed: of the order of the batches.
    """

    mean: float
    encoder: TextEncoder
    reviews: int = 5
    batch_size: int = 256
    l2: float = 4.0
    dropout: float = 0.0
    seed: int = 0


class Reviews(NamedTuple):
    """Distinct reviews: who wrote them, of what (int32 [M] each), and their texts in length buckets."""

    user: Any
    item: Any
    text: Any


class Batch(NamedTuple):
    """A step's interactions; padding is not valid.

    Attributes:
      user, item, target, valid: [B]; the target is the rating less the mean.
      share: [B, 2], of this interaction in those of its user, and of its item.
      of_user, of_item: int32 [B, R], places in `reviews` of what each side's reviews are; M where there is none.
      reviews: of all pairs.
    """

    user: Any
    item: Any
    target: Any
    valid: Any
    share: Any
    of_user: Any
    of_item: Any
    reviews: Reviews


class NARRE:
    """See the module. Users and items that train does not meet have zeros; rows are [D + 1], the last a bias."""

    rates = True
    ranks = True
    chunk = 1

    def __init__(self, options: NarreOptions, events: Events, sizes: tuple[int, int, int], devices: int = 1):
        """Finds everyone's reviews, and prepares batches.

        Args:
          options: sizes and weights.
          events: all interactions, in the order of learning, with texts.
          sizes: how many of them are train, validation and test.
          devices: a batch divides by their number.

        Raises:
          ValueError: there are no texts or no ratings in train.
        """
        train = events[: sizes[0]]
        rated = np.flatnonzero(train.has_rating)
        if train.tokens is None or not train.tokens.lengths.any() or not len(rated):
            raise ValueError("there are no texts, or no ratings, in train")
        self.options, self._events, self._tokens = options, train, train.tokens
        self._sides, counts = (train.user, train.item), (events.num_users, events.num_items)
        self._known = [
            np.isin(np.arange(count), ids[rated])[:, None] for ids, count in zip(self._sides, counts, strict=True)
        ]
        self._shares = [
            (1 / np.maximum(np.bincount(ids[rated], minlength=count), 1)).astype(np.float32)
            for ids, count in zip(self._sides, counts, strict=True)
        ]
        reviews = np.flatnonzero(train.tokens.lengths)
        self._latest = [
            _latest(reviews, ids[reviews], count, options.reviews)
            for ids, count in zip(self._sides, counts, strict=True)
        ]
        steps = -(-len(rated) // options.batch_size)
        self._groups = np.array_split(np.random.default_rng(0).permutation(rated), steps)
        self._size = -(-max(map(len, self._groups)) // devices) * devices
        needed = [_distinct(self._reviews_of(group)) for group in self._groups]
        tokens = train.tokens.lengths
        lengths = batching.bucket_lengths(int(tokens.max()))
        self._num_reviews = max(1, *map(len, needed))
        self._shapes = batching.fit([tokens[rows] for rows in needed], lengths, devices=devices)
        everything = _distinct(self._latest)
        shapes = batching.fit([tokens[everything]], lengths)
        self._everyone = (
            *(_places(table, everything, len(everything)) for table in self._latest),
            self._planned(everything, len(everything), shapes),
        )
        self._final = jax.jit(self._rows_of_everyone)
        self._segments = unchanging(events, sizes)

    def with_seed(self, seed: int) -> NARRE:
        """The same with another order of the batches."""
        other = copy.copy(self)
        other.options = dataclasses.replace(self.options, seed=seed)
        return other

    def init(self, key: jax.Array) -> Params:
        """Factors and biases as of our matrix factorisation, which it is until reviews say more.

        `weight` [D] is w; of each side `factors` [U, D + 1], `ids` [I, D] (of the other side's, for the attention),
        `of_review` and `of_id` [D, D], `bias` and `query` [D] (A, B, c and h), `project` [D, D] and `offset` [D].
        """
        size, encoder_key = self.options.encoder.features, jax.random.fold_in(key, 1)
        numbers = self._events.num_users, self._events.num_items
        count = sum(numbers) * (2 * size + 1) + 2 * (3 * size**2 + size)
        drawn, begin = jax.random.normal(key, (count,)), 0  # at once: every draw takes a second to compile

        def normal(scale: float, *shape: int) -> jax.Array:
            nonlocal begin
            begin += math.prod(shape)
            return scale * drawn[begin - math.prod(shape) : begin].reshape(shape)

        params: Params = {
            "text": text_encoder.init(self.options.encoder, encoder_key),
            "weight": jnp.ones(size),
        }
        for side, own, other in zip(SIDES, numbers, numbers[::-1], strict=True):
            params[side] = {
                "factors": normal(0.1, own, size + 1).at[:, -1].set(0.0),
                "ids": normal(0.1, other, size),
                "of_review": normal(size**-0.5, size, size),
                "of_id": normal(size**-0.5, size, size),
                "bias": jnp.zeros(size),
                "query": normal(size**-0.5, size),
                "project": normal(0.1 * size**-0.5, size, size),
                "offset": jnp.zeros(size),
            }
        return params

    def start(self, params: Params) -> States:
        """Everyone's rows by all their train reviews."""
        return self._final(params, self._everyone)

    def renew(self, params: Params, carry: Any, epoch: int, key: jax.Array) -> tuple:
        """Nothing is carried from batch to batch."""
        return ()

    def steps_per_epoch(self) -> int:
        """Batches."""
        return len(self._groups)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The batches, of equal size but for one interaction, in a random order."""
        events = self._events
        for number in np.random.default_rng((self.options.seed, epoch)).permutation(len(self._groups)):
            group = self._groups[number]
            rows = np.pad(group, (0, self._size - len(group)), mode="edge")
            tables = self._reviews_of(rows)
            needed = _distinct(tables)
            yield Batch(
                events.user[rows],
                events.item[rows],
                events.rating[rows] - np.float32(self.options.mean),
                np.arange(self._size) < len(group),
                np.stack([share[ids[rows]] for share, ids in zip(self._shares, self._sides, strict=True)], axis=1),
                _places(tables[0], needed, self._num_reviews),
                _places(tables[1], needed, self._num_reviews),
                self._planned(needed, self._num_reviews, self._shapes),
            )

    def loss(
        self, params: Params, carry: Any, batch: Batch, key: jax.Array, axis: Axis = ALONE
    ) -> tuple[jax.Array, tuple[Any, Mapping[str, jax.Array]]]:
        """Squared error and L2: over an epoch the sums of a ridge regression's, divided by the interactions."""
        first, second = jax.random.split(key)
        target, valid, share = (axis.shard(jnp.asarray(each)) for each in (batch.target, batch.valid, batch.share))
        user, item = self.rows(params, batch, first, axis)
        mixed = user[:, :-1] * item[:, :-1]
        if self.options.dropout:
            mixed = dropout.drop(second, mixed, axis.shard(jnp.arange(self._size)), self.options.dropout)
        predicted = mixed.sum(1) + user[:, -1] + item[:, -1]
        error = losses.squared_error(predicted, target, valid, axis)
        weight = valid[:, None] * share / jnp.maximum(axis.psum(valid.sum()), 1)
        penalty = (weight[:, :1] * user**2 + weight[:, 1:] * item**2).sum()
        return error + self.options.l2 * penalty, (carry, {"rating_loss": error})

    def rows(
        self, params: Params, batch: Batch, key: jax.Array | None = None, axis: Axis = ALONE
    ) -> tuple[jax.Array, jax.Array]:
        """Of a batch's interactions, this device's: [B, D + 1] each, without their own reviews.

        `key`: of the dropout of the encoder; None: none.
        """
        read = self._read(params, batch.reviews, key, axis)
        user, item, of_user, of_item = (
            axis.shard(jnp.asarray(each)) for each in (batch.user, batch.item, batch.of_user, batch.of_item)
        )
        rows = (
            params[side]["factors"][ids] + _content(params[side], read[0], scores, places)
            for side, ids, scores, places in zip(SIDES, (user, item), read[1], (of_user, of_item), strict=True)
        )
        return _weighted(params, *rows)

    def attention(self, params: Params) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """Of users, then of items: the train interactions whose reviews count, the latest first, -1 for none.

        Returns:
          Two times (int64 [U, R], float32 [U, R]): interactions, and weights of sum 1 for everyone with a review.
        """
        *places, reviews = self._everyone
        scores = jax.jit(self._read)(params, reviews)[1]
        weights = (np.asarray(_attention(each, jnp.asarray(at))) for each, at in zip(scores, places, strict=True))
        return tuple(zip(self._latest, weights, strict=True))

    def step_bytes(self) -> int:
        """About how much memory a training step takes: parameters, moments, gradient; reviews; pairs; a chunk."""
        params = jax.eval_shape(self.init, jax.random.key(0))
        size = self.options.encoder.features
        tokens = sum(shape.chunks * shape.rows * shape.length for shape in self._shapes)
        pairs = 2 * self._size * self.options.reviews * (size + 4)
        chunk = 8 * batching.BUDGET * self.options.encoder.width
        of_params = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
        return 4 * (5 * of_params + tokens + 8 * self._num_reviews * size + 2 * pairs + chunk)

    def segments(self) -> tuple[Lookup, ...]:
        """Train, validation and test."""
        return self._segments

    def observe(self, params: Params, carry: States, segment: Lookup) -> tuple[States, Trace]:
        """Nothing changes."""
        return observe(carry, segment)

    def after(self, params: Params, carry: States, segment: Lookup) -> States:
        """The carry after a segment."""
        return after(carry, segment)

    def rate(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Ratings [n] from rows [n, D + 1]."""
        return self.options.mean + product(user, item)

    def rank(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Predicted ratings [n, m] less the mean."""
        return products(user, item)

    def _reviews_of(self, rows: np.ndarray) -> list[np.ndarray]:
        """Of train interactions [B]: the interactions [B, R] whose reviews speak for each side, -1 where there is none.

        An interaction's own is not among them.
        """
        tables = (table[ids[rows]] for table, ids in zip(self._latest, self._sides, strict=True))
        return [np.where(table == rows[:, None], -1, table) for table in tables]

    def _planned(self, rows: np.ndarray, count: int, shapes: Sequence[batching.BucketShape]) -> Reviews:
        """The reviews of train interactions, padded to `count`."""
        tokens: Tokens = self._tokens
        text = batching.plan(tokens.ids, tokens.offsets, rows, shapes)
        text = text._replace(row=tuple(np.where(row < len(rows), row, count).astype(np.int32) for row in text.row))
        rows = np.pad(rows, (0, count - len(rows)))
        return Reviews(self._events.user[rows], self._events.item[rows], text)

    def _read(
        self, params: Params, reviews: Reviews, key: jax.Array | None = None, axis: Axis = ALONE
    ) -> tuple[jax.Array, list[jax.Array]]:
        """Features of reviews [M, D] and what they score for the attention [M], of users and of items."""
        count = len(reviews.user)
        features = text_encoder.encode(self.options.encoder, params["text"], reviews.text, count, key, axis)
        scores = []
        for side, other in zip(SIDES, (reviews.item, reviews.user), strict=True):
            own = params[side]
            hidden = features @ own["of_review"] + own["ids"][other] @ own["of_id"] + own["bias"]
            scores.append(jax.nn.relu(hidden) @ own["query"])
        return features, scores

    def _rows_of_everyone(self, params: Params, everyone: tuple) -> States:
        *places, reviews = everyone
        features, scores = self._read(params, reviews)
        rows = []
        for side, known, own, table in zip(SIDES, self._known, scores, places, strict=True):
            content = partial(_content, params[side], features, own)
            of_reviews = jax.lax.map(lambda each, content=content: content(each[None])[0], table, batch_size=BLOCK)
            rows.append(params[side]["factors"] * known + of_reviews)
        return States(*_weighted(params, *rows))


def _weighted(params: Params, user: jax.Array, item: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rows whose plain product is the weighted one: users' are multiplied by w."""
    return user * jnp.append(params["weight"], 1.0), item


def _attention(scores: jax.Array, places: jax.Array) -> jax.Array:
    """Softmax [B, R] of scores [M] over the places [B, R] below M; zeros where there is none."""
    present = places < len(scores)
    score = jnp.where(present, scores[jnp.minimum(places, len(scores) - 1)], -jnp.inf)
    highest = score.max(axis=1, keepdims=True)
    mass = jnp.exp(score - jax.lax.stop_gradient(jnp.where(jnp.isfinite(highest), highest, 0.0)))
    return mass / jnp.maximum(mass.sum(axis=1, keepdims=True), jnp.finfo(mass.dtype).tiny)


def _content(own: Params, features: jax.Array, scores: jax.Array, places: jax.Array) -> jax.Array:
    """What reviews add to rows: [B, D + 1], zeros for the bias, and for those without a review."""
    attention = _attention(scores, places)
    pooled = jnp.einsum("br,brd->bd", attention, features[jnp.minimum(places, len(features) - 1)])
    content = (pooled @ own["project"] + own["offset"]) * (places < len(features)).any(axis=1, keepdims=True)
    return jnp.pad(content, ((0, 0), (0, 1)))


def _latest(rows: np.ndarray, owner: np.ndarray, count: int, most: int) -> np.ndarray:
    """int64 [count, most]: of ascending rows [n] the last of each owner (int [n]), the latest first; -1: no more."""
    order = np.argsort(owner, kind="stable")
    ends = np.cumsum(np.bincount(owner, minlength=count))
    back = ends[owner[order]] - 1 - np.arange(len(rows))  # how many of the same owner come after it
    kept = back < most
    table = np.full((count, most), -1, np.int64)
    table[owner[order][kept], back[kept]] = rows[order][kept]
    return table


def _distinct(tables: Sequence[np.ndarray]) -> np.ndarray:
    """The interactions that tables name, ascending."""
    found = np.unique(np.concatenate([table.ravel() for table in tables]))
    return found[found >= 0]


def _places(table: np.ndarray, needed: np.ndarray, missing: int) -> np.ndarray:
    """int32, shaped as the table: where each interaction stands among those needed; `missing` for -1."""
    return np.where(table >= 0, np.searchsorted(needed, table), missing).astype(np.int32)

"""Ratings from reviews, in the manner of NARRE (Chen, Zhang, Liu and Ma, WWW 2018).

The rating of a user u and an item i is

    mean + b_u + b_i + w . ((q_u + X_u) * (p_i + Y_i))

where q and p are factors of ids, and X_u comes from the reviews that u wrote. The attention to a review l, of item j,
is the softmax over u's reviews of h . relu(A O_l + B v_j + c), where O_l are the features of the review from the text
encoder and v_j is a vector of the id j. X_u is an affine function of the mean of the reviews' features under this
attention. Y_i comes in the same way from the reviews that i received, with vectors of the ids of their authors.

Differences from the paper:

* The text encoder is the package's own (`drex_jax.text.encoder`: one convolution and attention pooling over subwords),
  trained from scratch. The paper has a convolutional network with max-pooling over pretrained word vectors.
* While the model trains on an interaction, the review of this interaction is left out of both sides. Public code keeps
  it, so the model reads the opinion that it is to predict, which it cannot do on test. The rows of `start`, which
  evaluation uses, come from all train reviews; so they are too good for the train pairs themselves.
* Both sides use only the latest few train reviews; reviews of validation and test are not read.
* The optimizer is Adam, and the L2 penalty is that of ridge regression on all rows, instead of one on weights alone.

The interactions of each batch are drawn once, so that the distinct reviews of a batch, each encoded once, fit arrays of
one shape. Epochs differ in the order of the batches.

Letters: U users, I items, B pairs of a batch, R reviews of a side, M distinct reviews, D size.
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from drex_jax.common.side import Side
from drex_jax.devices import dropout
from drex_jax.devices.axis import ALONE, Axis
from drex_jax.models import losses
from drex_jax.models.baselines.matrix_factorisation import BiasedProduct
from drex_jax.models.baselines.settings import NarreSettings
from drex_jax.models.protocol import Loss, Params, States
from drex_jax.text import encoder as text_encoder
from drex_jax.text.encoder import TextEncoder

BLOCK = 4096  # rows that are computed at a time


class Reviews(NamedTuple):
    """Distinct reviews: their users and items (int32 [M] each), and their texts in length buckets."""

    user: Any
    item: Any
    text: Any


class ReviewBatch(NamedTuple):
    """The interactions of a step; `valid` is false for padding.

    Attributes:
      user, item, target, valid: [B]; the target is the rating minus the mean.
      share: [B, 2], the share of this interaction in the interactions of its user, and of its item.
      of_user, of_item: int32 [B, R], the positions in `reviews` of the reviews of each side; M for padding.
      reviews: the distinct reviews of all pairs.
    """

    user: Any
    item: Any
    target: Any
    valid: Any
    share: Any
    of_user: Any
    of_item: Any
    reviews: Reviews


class AllReviews(NamedTuple):
    """The inputs of all rows: masks of the users and items in train (bool [U, 1], [I, 1]), and as in `ReviewBatch`."""

    known_user: Any
    known_item: Any
    of_user: Any
    of_item: Any
    reviews: Reviews


@dataclasses.dataclass(frozen=True)
class NARRE(BiasedProduct):
    """The model that the module describes. Rows are [D + 1], the last entry a bias; unknown users and items have zeros.

    Attributes:
      settings: sizes and weights; `size` is D, also the size of the encoder's features.
      vocabulary_size, text_width, text_dropout: options of the encoder.
      num_users, num_items: U and I.
    """

    settings: NarreSettings
    vocabulary_size: int
    text_width: int
    text_dropout: float
    num_users: int
    num_items: int

    @property
    def text_encoder(self) -> TextEncoder:
        """The encoder of reviews."""
        return TextEncoder(self.vocabulary_size, self.text_width, self.settings.size, self.text_dropout)

    def init(self, key: jax.Array) -> Params:
        """Return new parameters. At first the model is close to our matrix factorisation, because reviews add little.

        `weight` [D] is w. Each side has `factors` [U, D + 1], `ids` [I, D] (vectors of the other side's ids, for the
        attention), `of_review` and `of_id` [D, D], `bias` and `query` [D] (A, B, c and h), `project` [D, D] and
        `offset` [D].
        """
        size, encoder_key = self.settings.size, jax.random.fold_in(key, 1)
        numbers = self.num_users, self.num_items
        count = sum(numbers) * (2 * size + 1) + 2 * (3 * size**2 + size)
        drawn, begin = jax.random.normal(key, (count,)), 0  # once: each draw takes 1 s to compile

        def normal(scale: float, *shape: int) -> jax.Array:
            nonlocal begin
            begin += math.prod(shape)
            return scale * drawn[begin - math.prod(shape) : begin].reshape(shape)

        params: Params = {"text": text_encoder.init(self.text_encoder, encoder_key), "weight": jnp.ones(size)}
        for side, own, other in zip(Side, numbers, numbers[::-1], strict=True):
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

    def loss(self, params: Params, carry: Any, batch: ReviewBatch, key: jax.Array, axis: Axis = ALONE) -> Loss:
        """Return squared error plus L2.

        Averaged over an epoch, it is the loss of a ridge regression divided by the number of interactions.
        """
        first, second = jax.random.split(key)
        target, valid, share = (axis.shard(jnp.asarray(each)) for each in (batch.target, batch.valid, batch.share))
        user, item = self.rows(params, batch, first, axis)
        mixed = user[:, :-1] * item[:, :-1]
        if self.settings.dropout:
            rows = axis.shard(jnp.arange(len(batch.user)))
            mixed = dropout.drop(second, mixed, rows, self.settings.dropout)
        predicted = mixed.sum(1) + user[:, -1] + item[:, -1]
        error = losses.squared_error(predicted, target, valid, axis)
        weight = valid[:, None] * share / jnp.maximum(axis.psum(valid.sum()), 1)
        penalty = (weight[:, :1] * user**2 + weight[:, 1:] * item**2).sum()
        return error + self.settings.l2 * penalty, (carry, {"rating_loss": error})

    def rows(
        self, params: Params, batch: ReviewBatch, key: jax.Array | None = None, axis: Axis = ALONE
    ) -> tuple[jax.Array, jax.Array]:
        """Return the rows of this device's interactions, [B, D + 1] for each side, without their own reviews.

        `key`: the random key of the encoder's dropout; None turns dropout off.
        """
        read = self.read(params, batch.reviews, key, axis)
        user, item, of_user, of_item = (
            axis.shard(jnp.asarray(each)) for each in (batch.user, batch.item, batch.of_user, batch.of_item)
        )
        rows = (
            params[side]["factors"][ids] + _content(params[side], read[0], scores, places)
            for side, ids, scores, places in zip(Side, (user, item), read[1], (of_user, of_item), strict=True)
        )
        return _weighted(params, *rows)

    def read(
        self, params: Params, reviews: Reviews, key: jax.Array | None = None, axis: Axis = ALONE
    ) -> tuple[jax.Array, list[jax.Array]]:
        """Return the features of reviews [M, D], and their attention scores [M] for users and for items."""
        count = len(reviews.user)
        features = text_encoder.encode(self.text_encoder, params["text"], reviews.text, count, key, axis)
        scores = []
        for side, other in zip(Side, (reviews.item, reviews.user), strict=True):
            own = params[side]
            hidden = features @ own["of_review"] + own["ids"][other] @ own["of_id"] + own["bias"]
            scores.append(jax.nn.relu(hidden) @ own["query"])
        return features, scores

    def final(self, params: Params, everything: AllReviews) -> States:
        """Return the rows of all users and items from all train reviews."""
        features, scores = self.read(params, everything.reviews)
        known = everything.known_user, everything.known_item
        places = everything.of_user, everything.of_item
        rows = []
        for side, met, own, table in zip(Side, known, scores, places, strict=True):
            content = partial(_content, params[side], features, own)
            of_reviews = jax.lax.map(lambda each, content=content: content(each[None])[0], table, batch_size=BLOCK)
            rows.append(params[side]["factors"] * met + of_reviews)
        return States(*_weighted(params, *rows))


def _weighted(params: Params, user: jax.Array, item: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return rows whose inner product is the weighted one: the users' rows are multiplied by w."""
    return user * jnp.append(params["weight"], 1.0), item


def attention_of(scores: jax.Array, places: jax.Array) -> jax.Array:
    """Return the softmax [B, R] of scores [M] over the positions [B, R] below M; M is padding and gets zero."""
    present = places < len(scores)
    score = jnp.where(present, scores[jnp.minimum(places, len(scores) - 1)], -jnp.inf)
    highest = score.max(axis=1, keepdims=True)
    mass = jnp.exp(score - jax.lax.stop_gradient(jnp.where(jnp.isfinite(highest), highest, 0.0)))
    return mass / jnp.maximum(mass.sum(axis=1, keepdims=True), jnp.finfo(mass.dtype).tiny)


def _content(own: Params, features: jax.Array, scores: jax.Array, places: jax.Array) -> jax.Array:
    """Return the terms X_u or Y_i of rows, [B, D + 1]; zeros for the bias, and for rows without a review."""
    attention = attention_of(scores, places)
    pooled = jnp.einsum("br,brd->bd", attention, features[jnp.minimum(places, len(features) - 1)])
    content = (pooled @ own["project"] + own["offset"]) * (places < len(features)).any(axis=1, keepdims=True)
    return jnp.pad(content, ((0, 0), (0, 1)))

"""The review encoder, linear in length: embeddings, a width-3 convolution, additive attention pooling.

In place of embeddings there may be what a BERT says of each token, projected: a frozen one before, or one that learns.

Letters: R rows, T tokens of a row, D width, F features, V vocabulary size, G width of given token features.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from drex_jax.devices import dropout
from drex_jax.devices.axis import ALONE, Axis
from drex_jax.text.batching import TextBatch
from drex_jax.text.bert.network import Bert

Params = dict[str, Any]


class TextEncoder(nn.Module):
    """Encodes token ids [R, T] (0 is padding) to features [R, F] and attention weights [R, T].

    `x + relu(conv3(x))` gives each token its context; the attention is Bahdanau, Cho and Bengio's (2015) additive
    score `v . tanh(W h)`, softmax over the row's own tokens; the pooled vector is normalised and projected. A row of
    padding has attention and features of zero and gives no gradient.

    Attributes:
      vocabulary_size: V.
      width: D of embeddings and convolution.
      features: F.
      dropout: the rate at which entries of the pooled vector are dropped, and whole tokens lose their embedding
        (without rescaling: the pooled vector is normalised). Masks of [R, T, D] cost more than they are worth.
      given_width: G, where token features are given; 0: embeddings are learned.
      bert: what makes the token features, its parameters among those of the encoder; None: they are given.
    """

    vocabulary_size: int
    width: int = 64
    features: int = 32
    dropout: float = 0.0
    given_width: int = 0
    bert: Bert | None = None

    @nn.compact
    def __call__(
        self, ids: jax.Array, rows: jax.Array | None = None, given: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """`ids`: [R, T]; `rows`: int32 [R], the texts' numbers, in training alone; `given`: [R, T, G]."""
        present = ids > 0  # [R, T]
        if self.bert is not None:
            own = jax.lax.cummax(present.astype(jnp.int32), axis=1, reverse=True)  # a review may spell "[PAD]" itself
            given = self.bert(ids, own)
        if given is None:
            table = self.param("embedding", nn.initializers.normal(0.1), (self.vocabulary_size, self.width))
            embedded = table[ids]
        else:
            flat = given.reshape(-1, self.given_width).astype(jnp.float32)
            embedded = nn.Dense(self.width, name="given")(flat).reshape(*ids.shape, self.width)
        taps = self.param("convolution", nn.initializers.normal(0.5), (3, self.width))
        bias = self.param("convolution_bias", nn.initializers.zeros, (self.width,))
        seen = present
        if self.dropout and rows is not None:
            seen &= dropout.kept(self.make_rng("dropout"), rows, self.dropout, ids.shape[1:])
        x = embedded * seen[..., None]  # [R, T, D]
        padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
        context = padded[:, :-2] * taps[0] + x * taps[1] + padded[:, 2:] * taps[2] + bias
        h = x + nn.relu(context)  # [R, T, D]

        query = self.param("query", nn.initializers.normal(self.width**-0.5), (self.width,))
        keys = jnp.tanh(nn.Dense(self.width, name="key")(h.reshape(-1, self.width)))  # [R T, D]: one plain product
        score = jnp.where(present, (keys @ query).reshape(ids.shape), -jnp.inf)  # [R, T]
        highest = jnp.max(score, axis=1, keepdims=True)
        mass = jnp.exp(score - jax.lax.stop_gradient(jnp.where(jnp.isfinite(highest), highest, 0.0)))
        attention = mass / jnp.maximum(mass.sum(axis=1, keepdims=True), jnp.finfo(mass.dtype).tiny)
        pooled = jnp.einsum("rt,rtd->rd", attention, h)
        pooled = nn.LayerNorm(name="norm")(pooled)
        if self.dropout and rows is not None:
            pooled = dropout.drop(self.make_rng("dropout"), pooled, rows, self.dropout)
        feature = nn.Dense(self.features, name="out")(pooled)
        return feature * present.any(axis=1, keepdims=True), attention


def init(encoder: TextEncoder, key: jax.Array) -> Params:
    """New parameters."""
    given = jnp.zeros((1, 1, encoder.given_width)) if encoder.given_width and encoder.bert is None else None
    variables: Any = encoder.init(key, jnp.zeros((1, 1), jnp.int32), given=given)
    return variables["params"]


def encode_chunk(
    encoder: TextEncoder,
    params: Params,
    ids: jax.Array,
    key: jax.Array | None = None,
    rows: jax.Array | None = None,
    given: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Features [R, F] and attention [R, T] of token ids [R, T]; with a `key`, dropout of the texts numbered `rows`."""
    outputs: Any = encoder.apply({"params": params}, ids, rows, given, rngs=None if key is None else {"dropout": key})
    return outputs


def encode(
    encoder: TextEncoder,
    params: Params,
    batch: TextBatch,
    num_rows: int,
    key: jax.Array | None = None,
    axis: Axis = ALONE,
) -> jax.Array:
    """Features of a window's texts, chunk by chunk; differentiable in two phases.

    The forward pass keeps no residuals; the backward pass encodes each chunk again and accumulates its gradient. So
    memory is that of one chunk and of the features, however long the window is.

    Args:
      encoder: the module.
      params: its parameters, from `init`.
      batch: from `batching.plan`, for a window of `num_rows` rows.
      num_rows: n.
      key: of dropout; None turns dropout off.
      axis: the devices that share the chunks; each returns all features.

    Returns:
      [num_rows, F]; zeros in rows without text.
    """

    @partial(jax.checkpoint, prevent_cse=False)
    def features_of(ids: jax.Array, row: jax.Array, given: jax.Array | None) -> jax.Array:
        return encode_chunk(encoder, params, ids, key, None if key is None else row, given)[0]

    features = jnp.zeros((num_rows, encoder.features))
    for ids, row, given in _buckets(batch):
        own = jax.tree.map(lambda each: axis.shard(jnp.asarray(each)), (ids, row, given))
        _, encoded = jax.lax.scan(lambda _, inputs: ((), features_of(*inputs)), (), own)  # [own chunks, R, F]
        features = features.at[row].set(axis.all_gather(encoded), mode="drop")
    return features


def attention(encoder: TextEncoder, params: Params, batch: TextBatch) -> tuple[jax.Array, ...]:
    """The attention weights of every token of a batch, laid out as `batch.ids`: each float32 [chunks, R, T]."""

    def weights(chunk: tuple[jax.Array, jax.Array | None]) -> jax.Array:
        ids, given = chunk
        return encode_chunk(encoder, params, ids, given=given)[1]

    return tuple(jax.lax.map(weights, (ids, given)) for ids, _, given in _buckets(batch))


def _buckets(batch: TextBatch) -> Iterator[tuple[Any, Any, Any]]:
    """(ids, row, features or None) of each bucket."""
    features = (None,) * len(batch.ids) if batch.features is None else batch.features
    return zip(batch.ids, batch.row, features, strict=True)

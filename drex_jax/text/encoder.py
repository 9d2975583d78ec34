"""The review encoder, linear in length: embeddings, a convolution of width 3, additive attention pooling.

Instead of embeddings it can use projected token features of a BERT, which is frozen or trained with the encoder.

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
    """Encode token ids [R, T] (0 is padding) to features [R, F] and attention weights [R, T].

    `x + relu(conv3(x))` gives each token its context; the attention is Bahdanau, Cho and Bengio's (2015) additive
    score `v . tanh(W h)`, softmax over the tokens of the row; the pooled vector is normalised and projected. A row of
    padding has zero attention, zero features and no gradient.

    Attributes:
      vocabulary_size: V.
      width: D, width of embeddings and convolution.
      features: F.
      dropout: rate at which entries of the pooled vector are dropped, and whole tokens lose their embedding (without
        rescaling, because the pooled vector is normalised). A mask of [R, T, D] costs more and gains nothing.
      given_width: G, width of given token features; 0: embeddings are learned.
      bert: the BERT that computes token features and is trained with the encoder; None: features are given.
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
        """Encode `ids` [R, T]. `rows`: int32 [R], row numbers for dropout, in training; `given`: [R, T, G]."""
        present = ids > 0  # [R, T]
        if self.bert is not None:
            segments = jax.lax.cummax(present.astype(jnp.int32), axis=1, reverse=True)  # a review may contain "[PAD]"
            given = self.bert(ids, segments)
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
    """Return new parameters."""
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
    """Return features [R, F] and attention [R, T] of token ids [R, T]; a `key` enables dropout by row number."""
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
    """Encode the texts of a window chunk by chunk.

    The forward pass saves no intermediate values; the backward pass encodes each chunk again. So memory holds one chunk
    and the features, however long the window is.

    Args:
      encoder: the module.
      params: the parameters of the encoder.
      batch: the texts of a window of `num_rows` rows, from `batching.plan`.
      num_rows: number of rows of the window.
      key: random key of dropout; None turns dropout off.
      axis: the devices that share the chunks; each returns all features.

    Returns:
      Features, [num_rows, F]; zeros in rows without text.
    """

    @partial(jax.checkpoint, prevent_cse=False)
    def features_of(ids: jax.Array, row: jax.Array, given: jax.Array | None) -> jax.Array:
        return encode_chunk(encoder, params, ids, key, None if key is None else row, given)[0]

    features = jnp.zeros((num_rows, encoder.features))
    for ids, row, given in _buckets(batch):
        shard = jax.tree.map(lambda leaf: axis.shard(jnp.asarray(leaf)), (ids, row, given))
        _, encoded = jax.lax.scan(lambda _, inputs: ((), features_of(*inputs)), (), shard)  # [chunks of shard, R, F]
        features = features.at[row].set(axis.all_gather(encoded), mode="drop")
    return features


def attention(encoder: TextEncoder, params: Params, batch: TextBatch) -> tuple[jax.Array, ...]:
    """Return the attention weights of all tokens of a batch: for each bucket, float32 [chunks, R, T]."""

    def weights(chunk: tuple[jax.Array, jax.Array | None]) -> jax.Array:
        ids, given = chunk
        return encode_chunk(encoder, params, ids, given=given)[1]

    return tuple(jax.lax.map(weights, (ids, given)) for ids, _, given in _buckets(batch))


def _buckets(batch: TextBatch) -> Iterator[tuple[Any, Any, Any]]:
    """Iterate over the buckets: (ids, row, features or None)."""
    features = (None,) * len(batch.ids) if batch.features is None else batch.features
    return zip(batch.ids, batch.row, features, strict=True)

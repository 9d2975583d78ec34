"""Losses over scores. Ranking losses compare an interaction's own item with negatives drawn uniformly.

If several devices share a batch (`axis`), the arguments are one device's shard of the rows, and the result is this
device's share of the loss: the loss is the sum over devices.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from drex_jax.devices.axis import ALONE, Axis


def _mean(values: jax.Array, counted: jax.Array, axis: Axis) -> jax.Array:
    """Return this device's share of the mean over the counted values of all devices; 0 if no value is counted."""
    return jnp.where(counted, values, 0.0).sum() / jnp.maximum(axis.psum(counted.sum()), 1)


def squared_error(predicted: jax.Array, actual: jax.Array, valid: jax.Array, axis: Axis = ALONE) -> jax.Array:
    """Return the mean of (predicted - actual)^2 over valid entries; 0 if no entry is valid. All arguments are [n]."""
    error = predicted - jnp.where(valid, actual, 0.0)
    return _mean(jnp.where(valid, error, 0.0) ** 2, valid, axis)


def sampled_softmax(positive: jax.Array, negative: jax.Array, valid: jax.Array, axis: Axis = ALONE) -> jax.Array:
    """Return the mean negative log-likelihood of the positive among itself and its valid negatives.

    For uniform draws the correction of sampled softmax is one constant for all negatives, so it is left out.

    Args:
      positive: [n], scores of the positives.
      negative: [n, m], scores of the negatives.
      valid: bool [n, m], the negatives that count; an interaction without a valid negative is ignored.
      axis: the devices that share the batch.
    """
    logits = jnp.concatenate([positive[:, None], jnp.where(valid, negative, -jnp.inf)], axis=1)
    each = jax.nn.logsumexp(logits, axis=1) - positive
    return _mean(each, valid.any(axis=1), axis)


def bpr(positive: jax.Array, negative: jax.Array, valid: jax.Array, axis: Axis = ALONE) -> jax.Array:
    """Return the BPR loss (Rendle et al., UAI 2009): the mean over valid pairs of -log sigmoid(score difference)."""
    each = jax.nn.softplus(negative - positive[:, None])
    return _mean(each, valid, axis)


def first_occurrences(numbers: jax.Array, counted: jax.Array) -> jax.Array:
    """Return a mask, bool [n], of the first occurrence of each number [n] among those that are counted (bool [n])."""
    n = len(numbers)
    order = jnp.argsort(jnp.where(counted, numbers, jnp.iinfo(numbers.dtype).max), stable=True)
    ordered = numbers[order]
    new = jnp.concatenate([jnp.ones(1, bool), ordered[1:] != ordered[:-1]])
    return jnp.zeros(n, bool).at[order].set(new) & counted


def info_nce(
    anchors: jax.Array,
    own: jax.Array,
    others: jax.Array,
    counted: jax.Array,
    compared: jax.Array,
    temperature: float,
    axis: Axis = ALONE,
) -> jax.Array:
    """Return the InfoNCE loss (van den Oord et al., 2018) with cosine similarities.

    Args:
      anchors: [n, D], this device's anchors.
      own: [n, D], the positive of each anchor; positives are also among `others`.
      others: [m, D], the candidates, replicated on all devices.
      counted: bool [n], the anchors that count.
      compared: bool [m], the candidates that anchors are compared with.
      temperature: the cosines are divided by it.
      axis: the devices that share the batch.
    """
    anchors, own, others = _unit(anchors), _unit(own), _unit(others)
    positive = (anchors * own).sum(1) / temperature
    logits = jnp.where(compared, anchors @ others.T / temperature, -jnp.inf)
    return _mean(jax.nn.logsumexp(logits, axis=1) - positive, counted, axis)


def _unit(rows: jax.Array) -> jax.Array:
    return rows * jax.lax.rsqrt((rows**2).sum(1, keepdims=True) + 1e-12)


RANKING_LOSSES = {"sampled_softmax": sampled_softmax, "bpr": bpr}

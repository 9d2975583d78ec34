"""Losses over scores. Ranking losses compare an interaction's own item with negatives drawn uniformly.

Where several devices share a batch (`axis`), arguments are a device's own rows and the result is its share.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from drex_jax.devices.axis import ALONE, Axis


def _mean(values: jax.Array, counted: jax.Array, axis: Axis) -> jax.Array:
    """Return this device's share of the mean over all devices' counted values; 0 if none is counted."""
    return jnp.where(counted, values, 0.0).sum() / jnp.maximum(axis.psum(counted.sum()), 1)


def squared_error(predicted: jax.Array, actual: jax.Array, valid: jax.Array, axis: Axis = ALONE) -> jax.Array:
    """Return the mean of (predicted - actual)^2 over valid entries; 0 without any. All [n]."""
    error = predicted - jnp.where(valid, actual, 0.0)
    return _mean(jnp.where(valid, error, 0.0) ** 2, valid, axis)


def sampled_softmax(positive: jax.Array, negative: jax.Array, valid: jax.Array, axis: Axis = ALONE) -> jax.Array:
    """Return the mean negative log-likelihood of the positive among itself and its valid negatives.

    Uniform draws need no correction beyond a constant, the same for every negative, which is left out.

    Args:
      positive: [n] scores.
      negative: [n, m] scores.
      valid: bool [n, m]; an interaction without any valid negative counts nowhere.
      axis: the devices that share the batch.
    """
    logits = jnp.concatenate([positive[:, None], jnp.where(valid, negative, -jnp.inf)], axis=1)
    each = jax.nn.logsumexp(logits, axis=1) - positive
    return _mean(each, valid.any(axis=1), axis)


def bpr(positive: jax.Array, negative: jax.Array, valid: jax.Array, axis: Axis = ALONE) -> jax.Array:
    """Bayesian personalised ranking (Rendle et al., UAI 2009): mean over valid pairs of -log sigmoid(difference)."""
    each = jax.nn.softplus(negative - positive[:, None])
    return _mean(each, valid, axis)


def first_occurrences(numbers: jax.Array, counted: jax.Array) -> jax.Array:
    """Return True where a number [n] is counted (bool [n]) and no counted one before it is equal: bool [n]."""
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
    """InfoNCE (van den Oord et al., 2018) by cosines: how well each anchor finds its own among the others.

    Args:
      anchors: [n, D], this device's.
      own: [n, D], what each should find; they are among the others.
      others: [m, D], alike on all devices.
      counted: bool [n], which anchors count.
      compared: bool [m], which others they are compared with.
      temperature: divides cosines.
      axis: the devices that share the batch.
    """
    anchors, own, others = _unit(anchors), _unit(own), _unit(others)
    positive = (anchors * own).sum(1) / temperature
    logits = jnp.where(compared, anchors @ others.T / temperature, -jnp.inf)
    return _mean(jax.nn.logsumexp(logits, axis=1) - positive, counted, axis)


def _unit(rows: jax.Array) -> jax.Array:
    return rows * jax.lax.rsqrt((rows**2).sum(1, keepdims=True) + 1e-12)


RANKING_LOSSES = {"sampled_softmax": sampled_softmax, "bpr": bpr}

"""Losses over scores. Ranking losses compare an interaction's own item with negatives drawn uniformly.

Where several devices share a batch (`axis`), arguments are a device's own rows and the result is its share.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from drex_jax.models.axis import ALONE, Axis


def _mean(values: jax.Array, counted: jax.Array, axis: Axis) -> jax.Array:
    """The share of this device of the mean over all devices' counted values; 0 where none is counted."""
    return jnp.where(counted, values, 0.0).sum() / jnp.maximum(axis.total(counted.sum()), 1)


def squared_error(predicted: jax.Array, actual: jax.Array, valid: jax.Array, axis: Axis = ALONE) -> jax.Array:
    """Mean over valid entries of (predicted - actual)^2; 0 where none is. All [n]."""
    error = predicted - jnp.where(valid, actual, 0.0)
    return _mean(jnp.where(valid, error, 0.0) ** 2, valid, axis)


def sampled_softmax(positive: jax.Array, negative: jax.Array, valid: jax.Array, axis: Axis = ALONE) -> jax.Array:
    """Mean negative log-likelihood of the positive among itself and its valid negatives.

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


RANKING_LOSSES = {"sampled_softmax": sampled_softmax, "bpr": bpr}

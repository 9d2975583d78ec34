"""Losses over scores. Ranking losses compare an interaction's own item with negatives drawn uniformly."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def squared_error(predicted: jax.Array, actual: jax.Array, valid: jax.Array) -> jax.Array:
    """Mean over valid entries of (predicted - actual)^2; 0 where none is. All [n]."""
    error = jnp.where(valid, predicted - jnp.where(valid, actual, 0.0), 0.0)
    return (error**2).sum() / jnp.maximum(valid.sum(), 1)


def sampled_softmax(positive: jax.Array, negative: jax.Array, valid: jax.Array) -> jax.Array:
    """Mean negative log-likelihood of the positive among itself and its valid negatives.

    Uniform draws need no correction beyond a constant, the same for every negative, which is left out.

    Args:
      positive: [n] scores.
      negative: [n, m] scores.
      valid: bool [n, m]; an interaction without any valid negative counts nowhere.
    """
    logits = jnp.concatenate([positive[:, None], jnp.where(valid, negative, -jnp.inf)], axis=1)
    each = jax.nn.logsumexp(logits, axis=1) - positive
    counted = valid.any(axis=1)
    return jnp.where(counted, each, 0.0).sum() / jnp.maximum(counted.sum(), 1)


def bpr(positive: jax.Array, negative: jax.Array, valid: jax.Array) -> jax.Array:
    """Bayesian personalised ranking (Rendle et al., UAI 2009): mean over valid pairs of -log sigmoid(difference)."""
    each = jax.nn.softplus(negative - positive[:, None])
    return jnp.where(valid, each, 0.0).sum() / jnp.maximum(valid.sum(), 1)


RANKING_LOSSES = {"sampled_softmax": sampled_softmax, "bpr": bpr}

"""Recursive cross-modal attention: in each round, every modality attends to the joint content of all modalities.

Correlation is over the feature axis, so a round costs n M D^2 and needs no n x n array. The form is joint
cross-attention (recursive joint cross-attention of Praveen and Alam, 2024), which CRANE cites as related.

Letters: n rows (items or users), M modalities, D features, R rounds.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

START = 0.1  # size of a round's change at the start: contents stay nearly standardised
EPSILON = 1e-3  # added to variances, so that columns that hardly vary (of mostly inactive units) are not amplified


class Round(NamedTuple):
    """The weights of one round.

    Attributes:
      joint: [M D, D], maps the contents of all modalities to the joint content.
      scale: [M], the root mean square of the correlation inside tanh.
      own: [M, D, D], weights of each modality's own content.
      attended: [M, D, D], weights of the joint content that each modality attends to.
      out: [M, D, D], maps the hidden layer of both to the change of the content.
    """

    joint: jax.Array
    scale: jax.Array
    own: jax.Array
    attended: jax.Array
    out: jax.Array


def init_rounds(key: jax.Array, rounds: int, modalities: int, size: int) -> list[Round]:
    """Return new weights for R rounds: columns of unit variance; `scale` 1, at which tanh is not saturated."""

    def new(key: jax.Array) -> Round:
        keys = jax.random.split(key, 4)
        square = (modalities, size, size)
        return Round(
            joint=jax.random.normal(keys[0], (modalities * size, size)) / math.sqrt(modalities * size),
            scale=jnp.ones(modalities),
            own=jax.random.normal(keys[1], square) / math.sqrt(size),
            attended=jax.random.normal(keys[2], square) / math.sqrt(size),
            out=START * jax.random.normal(keys[3], square) / math.sqrt(size),
        )

    return [new(each) for each in jax.random.split(key, rounds)] if rounds else []


class Moments(NamedTuple):
    """The mean and standard deviation of columns, [M, 1, D]."""

    mean: jax.Array
    deviation: jax.Array


def moments(contents: jax.Array, counted: jax.Array) -> Moments:
    """Return the moments of the columns of contents [M, n, D] over the rows `counted` (bool [M, n])."""
    weight = counted[:, :, None] / jnp.maximum(counted.sum(1), 1)[:, None, None]
    mean = (weight * contents).sum(1, keepdims=True)
    variance = (weight * (contents - mean) ** 2).sum(1, keepdims=True)
    return Moments(mean, jnp.sqrt(variance + EPSILON))


def standardise(contents: jax.Array, present: jax.Array, by: Moments) -> jax.Array:
    """Standardise contents [M, n, D] by mean and standard deviation; zeros where not `present` (bool [M, n])."""
    return jnp.where(present[:, :, None], (contents - by.mean) / by.deviation, 0.0)


def correlation(content: jax.Array, joint: jax.Array, scale: jax.Array, count: jax.Array) -> jax.Array:
    """Return tanh(scale C / rms(C)), [D, D], with C = content^T joint / count; absent rows of [n, D] are zeros.

    Dividing by the root mean square is our choice. For independent standardised columns C is of the order 1 / sqrt(D),
    but for features that vary in few directions it is of the order 1, and would saturate tanh.
    """
    product = content.T @ joint / count
    return jnp.tanh(scale * product * jax.lax.rsqrt((product**2).mean() + 1e-12))


def refine(rounds: list[Round], contents: jax.Array, present: jax.Array, counted: jax.Array | None = None) -> jax.Array:
    """Return the contents after all rounds.

    The change that a round adds is standardised first (our choice): it is never negative, so all rows would otherwise
    soon have the same direction.

    Args:
      rounds: the weights of each round.
      contents: [M, n, D], zeros where a modality is missing.
      present: bool [M, n], true where a row has a modality.
      counted: bool [n], the rows over which means and correlations are taken, such as the distinct rows; None: all.

    Returns:
      The refined contents, [M, n, D], zeros where a modality is missing.
    """
    read = present if counted is None else present & counted
    counts = jnp.maximum(read.sum(1), 1)
    for each in rounds:
        joint = jnp.concatenate(list(contents), axis=1) @ each.joint  # [n, D]
        hidden = []
        for m, content in enumerate(contents):
            seen = jnp.where(read[m][:, None], content, 0.0)
            attended = correlation(seen, joint, each.scale[m], counts[m]).T @ each.attended[m]  # [D, D]
            hidden.append(jax.nn.relu(content @ each.own[m] + joint @ attended))
        hidden = jnp.stack(hidden)
        contents = contents + standardise(hidden, present, moments(hidden, read)) @ each.out
    return contents


def mean_direction(contents: jax.Array, present: jax.Array) -> jax.Array:
    """Return the mean [n, D] over the modalities that a row has, at unit length; zeros if it has no modality.

    Arguments are those of `refine`.
    """
    mean = contents.sum(0) / jnp.maximum(present.sum(0), 1)[:, None]
    return mean * jax.lax.rsqrt((mean**2).sum(1, keepdims=True) + 1e-12)

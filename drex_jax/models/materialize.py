"""Scores that are compared with each other, and must be the same wherever they are read."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def materialize_scores(scores: jax.Array, number: jax.Array) -> jax.Array:
    """Return the scores [b, C] unchanged, but stored: each is computed once, so that equal items have equal scores.

    XLA computes what is cheap anew wherever it is used, drops `optimization_barrier` before that, and two computations
    of one score can differ in its last digit. What is written to, at a place that it cannot tell is none, it stores.

    Args:
      scores: to be compared with each other.
      number: any int that is not negative and not known to the compiler.
    """
    nowhere = jnp.stack([number, number]) + len(scores)  # two: a single write would be no loop, and fused
    return scores.at[nowhere, 0].set(0.0, mode="drop")

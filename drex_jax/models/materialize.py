"""Force XLA to compute scores once, so that comparisons between them are exact."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def materialize_scores(scores: jax.Array, number: jax.Array) -> jax.Array:
    """Return the scores [b, C] unchanged, but stored: each is computed once, so that equal items have equal scores.

    XLA recomputes cheap values wherever they are used, and two computations of one score can differ in the last digit.
    `optimization_barrier` does not help, because XLA removes it before. But scattering to an index that XLA cannot
    prove out of bounds forces it to store the array.

    Args:
      scores: the scores that are compared with each other.
      number: any non-negative int that is not a compile-time constant.
    """
    nowhere = jnp.stack([number, number]) + len(scores)  # two indices: XLA would fuse a single write
    return scores.at[nowhere, 0].set(0.0, mode="drop")

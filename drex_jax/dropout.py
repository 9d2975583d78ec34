"""Dropout whose mask depends on a row's number alone, so that it is the same on any number of devices."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def kept(key: jax.Array, rows: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
    """Bool [n, *shape]: what stays, of each of the rows numbered `rows` (int32 [n]), with probability 1 - rate."""

    def of_row(row: jax.Array) -> jax.Array:
        return jax.random.bernoulli(jax.random.fold_in(key, row), 1 - rate, shape)

    return jax.vmap(of_row)(rows)


def drop(key: jax.Array, values: jax.Array, rows: jax.Array, rate: float) -> jax.Array:
    """Values [n, ...] with each entry zeroed at `rate` and the others scaled up; `rows` as in `kept`."""
    return jnp.where(kept(key, rows, rate, values.shape[1:]), values / (1 - rate), 0.0)

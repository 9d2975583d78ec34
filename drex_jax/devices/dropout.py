"""Dropout with a mask that depends only on the row number, so it is the same on any number of devices.

An entry is kept or dropped by a hash of (key, row, position): two rounds of MurmurHash3's finaliser (Appleby, public
domain), with six integer operations a round. It is random enough for dropout. Threefry takes longer than the layers
that it masks, and adds seconds of compilation for every use.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def _mixed(x: jax.Array) -> jax.Array:
    """Apply MurmurHash3's finaliser to uint32 values: each bit of the result depends on all bits of `x`."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def kept(key: jax.Array, rows: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
    """Return the mask of kept entries, bool [n, *shape]; an entry is kept with probability 1 - rate.

    Args:
      key: random key of this use.
      rows: int32 [n], row numbers; equal numbers have equal masks.
      rate: share of entries that are dropped, from 0 to below 1.
      shape: shape of a row.
    """
    salt = jax.random.bits(key, (2,), jnp.uint32)
    of_row = _mixed(rows.astype(jnp.uint32) ^ salt[0]).reshape(-1, *[1] * len(shape))
    positions = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(1, *shape) * jnp.uint32(0x9E3779B9)
    return _mixed((of_row + positions) ^ salt[1]) >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))


def drop(key: jax.Array, values: jax.Array, rows: jax.Array, rate: float) -> jax.Array:
    """Set entries of `values` [n, ...] to zero at `rate` and scale up the others. Arguments are those of `kept`."""
    return jnp.where(kept(key, rows, rate, values.shape[1:]), values / (1 - rate), 0.0)

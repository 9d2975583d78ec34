"""Dropout whose mask depends on a row's number alone, so that it is the same on any number of devices.

An entry's bit is a hash of (key, row, position): two rounds of MurmurHash3's finaliser (Appleby, public domain), which
passes for random here and takes six integer operations a round, where Threefry takes longer than the layers it masks
and adds seconds of compilation for every use.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def _mixed(x: jax.Array) -> jax.Array:
    """MurmurHash3's finaliser of uint32: each bit of the result depends on all of `x`."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def kept(key: jax.Array, rows: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
    """Bool [n, *shape]: what stays, of each of the rows numbered `rows` (int32 [n]), with probability 1 - rate.

    Args:
      key: of this use.
      rows: int32 [n]; rows of one number get one mask.
      rate: share that is dropped, from 0 to below 1.
      shape: of a row.
    """
    salt = jax.random.bits(key, (2,), jnp.uint32)
    of_row = _mixed(rows.astype(jnp.uint32) ^ salt[0]).reshape(-1, *[1] * len(shape))
    positions = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(1, *shape) * jnp.uint32(0x9E3779B9)
    return _mixed((of_row + positions) ^ salt[1]) >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))


def drop(key: jax.Array, values: jax.Array, rows: jax.Array, rate: float) -> jax.Array:
    """Values [n, ...] with each entry zeroed at `rate` and the others scaled up; arguments as in `kept`."""
    return jnp.where(kept(key, rows, rate, values.shape[1:]), values / (1 - rate), 0.0)

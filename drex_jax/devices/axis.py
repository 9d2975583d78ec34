"""The devices that share a batch, as seen by the program of one device.

A model's program is written once, for one device of an axis. All devices receive the same values. Each device works on
its shard of the batch and returns its part of the loss. The sum over devices is the loss, and the sum of the gradients
is its gradient. With one device (`ALONE`) every method is the identity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Program = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Axis:
    """The devices that share a batch.

    Attributes:
      name: name of the mapped axis inside the program; None for one device.
      size: number of devices.
    """

    name: str | None = None
    size: int = 1

    def shard(self, rows: jax.Array, dimension: int = 0) -> jax.Array:
        """Return this device's shard along `dimension`, whose length must be divisible by `size`.

        Raises:
          ValueError: the length is not divisible.
        """
        length = rows.shape[dimension]
        if length % self.size:
            raise ValueError(f"{length} rows cannot be split evenly over {self.size} devices")
        if self.name is None:
            return rows
        part = length // self.size
        return lax.dynamic_slice_in_dim(rows, lax.axis_index(self.name) * part, part, dimension)

    def all_gather(self, shard: jax.Array, dimension: int = 0) -> jax.Array:
        """Concatenate the shards of all devices in device order."""
        return shard if self.name is None else lax.all_gather(shard, self.name, axis=dimension, tiled=True)

    def pad_to_global(self, shard: jax.Array, dimension: int = 0) -> jax.Array:
        """Pad a shard with zeros to the global size. The sum over devices is the result of `all_gather`."""
        if self.name is None:
            return shard
        part = shard.shape[dimension]
        shape = [*shard.shape[:dimension], part * self.size, *shard.shape[dimension + 1 :]]
        begin = lax.axis_index(self.name) * part
        return lax.dynamic_update_slice_in_dim(jnp.zeros(shape, shard.dtype), shard, begin, dimension)

    def psum(self, share: jax.Array) -> jax.Array:
        """Return the sum over all devices."""
        return share if self.name is None else lax.psum(share, self.name)

    def only_on_first_device(self, total: jax.Array) -> jax.Array:
        """Return `total` on the first device and zeros on the others, so that the sum over devices is `total`."""
        if self.name is None:
            return total
        return jnp.where(lax.axis_index(self.name) == 0, total, jnp.zeros_like(total))


ALONE = Axis()

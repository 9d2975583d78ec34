"""Several devices that work on one batch, as the program of one of them sees them.

A model's program is written once for one device of an axis. All devices are given the same values; each works on its
own rows of a batch and returns its share of a loss, so that the sum over devices is the loss, and the sum of their
gradients is its gradient. With one device (`ALONE`) every method is the identity.
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
      name: of the mapped axis inside the program; None for one device.
      size: number of devices.
    """

    name: str | None = None
    size: int = 1

    def shard(self, rows: jax.Array, dimension: int = 0) -> jax.Array:
        """The rows of this device along `dimension`, whose length `size` must divide.

        Raises:
          ValueError: it does not.
        """
        length = rows.shape[dimension]
        if length % self.size:
            raise ValueError(f"{length} rows cannot be split evenly over {self.size} devices")
        if self.name is None:
            return rows
        each = length // self.size
        return lax.dynamic_slice_in_dim(rows, lax.axis_index(self.name) * each, each, dimension)

    def all_gather(self, own: jax.Array, dimension: int = 0) -> jax.Array:
        """All devices' rows, in their order."""
        return own if self.name is None else lax.all_gather(own, self.name, axis=dimension, tiled=True)

    def pad_to_global(self, own: jax.Array, dimension: int = 0) -> jax.Array:
        """All devices' rows, where those of the others are zeros: a share of the rows that `everyone` gives."""
        if self.name is None:
            return own
        each = own.shape[dimension]
        shape = [*own.shape[:dimension], each * self.size, *own.shape[dimension + 1 :]]
        begin = lax.axis_index(self.name) * each
        return lax.dynamic_update_slice_in_dim(jnp.zeros(shape, own.dtype), own, begin, dimension)

    def psum(self, share: jax.Array) -> jax.Array:
        """The sum of the devices' shares."""
        return share if self.name is None else lax.psum(share, self.name)

    def only_on_first_device(self, total: jax.Array) -> jax.Array:
        """A share of what all devices have alike: the first device's is all of it, the others' are zeros."""
        if self.name is None:
            return total
        return jnp.where(lax.axis_index(self.name) == 0, total, jnp.zeros_like(total))


ALONE = Axis()

"""Biased matrix factorisation (Koren, Bell and Volinsky, 2009), fitted on train ratings by gradient descent."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.data.events import Events
from drex_jax.devices.axis import ALONE, Axis
from drex_jax.models import losses
from drex_jax.models.closed_form import Lookup, after, observe, unchanging
from drex_jax.models.protocol import States, Trace


@dataclasses.dataclass(frozen=True)
class FactorOptions:
    """Size and regularisation.

    Attributes:
      mean: of the train ratings.
      l2: weight of the squared factors and biases of a batch's users and items.
      size: D of the factors.
      batch_size: ratings a step.
      seed: of the order of the ratings.
    """

    mean: float
    l2: float
    size: int = 16
    batch_size: int = 1024
    seed: int = 0


class Batch(NamedTuple):
    """Ratings less the mean; padding is not valid. All [batch_size]."""

    user: Any
    item: Any
    target: Any
    valid: Any


class MatrixFactorisation:
    """Mean + b_u + b_i + <p_u, q_i>. Users and items without a train rating have zeros."""

    rates = True
    ranks = True
    chunk = 16

    def __init__(self, options: FactorOptions, events: Events, sizes: tuple[int, int, int], devices: int = 1):
        """`devices`: a batch is padded to divide by their number; its ratings are the same on any."""
        self._options = options
        self._padded = -(-options.batch_size // devices) * devices
        self._rows = np.flatnonzero(events.has_rating[: sizes[0]])
        self._events = events
        self._known_user = np.isin(np.arange(events.num_users), events.user[self._rows])[:, None]
        self._known_item = np.isin(np.arange(events.num_items), events.item[self._rows])[:, None]
        self._segments = unchanging(events, sizes)

    def with_seed(self, seed: int) -> MatrixFactorisation:
        """The same with another order of the ratings."""
        other = copy.copy(self)
        other._options = dataclasses.replace(self._options, seed=seed)
        return other

    def init(self, key: jax.Array) -> dict[str, jax.Array]:
        """Factors and biases, [U, D + 1] and [I, D + 1]; the last column is the bias."""
        size = self._options.size
        keys = jax.random.split(key)
        shapes = (("user", self._events.num_users), ("item", self._events.num_items))
        return {
            name: (0.1 * jax.random.normal(k, (n, size + 1))).at[:, -1].set(0.0)
            for k, (name, n) in zip(keys, shapes, strict=True)
        }

    def start(self, params: dict[str, jax.Array]) -> States:
        """The factors, of those met in train."""
        return States(params["user"] * self._known_user, params["item"] * self._known_item)

    def renew(self, params: dict[str, jax.Array], carry: States | None, epoch: int, key: jax.Array) -> States:
        """Everyone's rows at the start: an epoch begins with the first interaction."""
        return self.start(params)

    def steps_per_epoch(self) -> int:
        """Batches."""
        return -(-len(self._rows) // self._options.batch_size)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """All train ratings in a random order."""
        rows = np.random.default_rng((self._options.seed, epoch)).permutation(self._rows)
        size, events = self._options.batch_size, self._events
        for begin in range(0, len(rows), size):
            chosen = rows[begin : begin + size]
            padded = np.pad(chosen, (0, self._padded - len(chosen)), mode="edge")
            target = events.rating[padded] - np.float32(self._options.mean)
            yield Batch(events.user[padded], events.item[padded], target, np.arange(self._padded) < len(chosen))

    def loss(
        self, params: dict[str, jax.Array], carry: States, batch: Batch, key: jax.Array, axis: Axis = ALONE
    ) -> tuple[jax.Array, tuple[States, Mapping[str, jax.Array]]]:
        """Squared error and L2."""
        own = Batch(*(axis.shard(jnp.asarray(column)) for column in batch))
        user, item = params["user"][own.user], params["item"][own.item]
        error = losses.squared_error(product(user, item), own.target, own.valid, axis)
        weight = own.valid[:, None] / jnp.maximum(axis.psum(own.valid.sum()), 1)
        penalty = (weight * (user**2 + item**2)).sum()
        return error + self._options.l2 * penalty, (carry, {"rating_loss": error})

    def step_bytes(self) -> int:
        """About how much memory a training step takes: parameters, their gradient and the optimizer's two moments."""
        return 4 * 5 * (self._options.size + 1) * (self._events.num_users + self._events.num_items)

    def segments(self) -> tuple[Lookup, ...]:
        """Train, validation and test."""
        return self._segments

    def observe(self, params: dict[str, Any], carry: States, segment: Lookup) -> tuple[States, Trace]:
        """Nothing changes."""
        return observe(carry, segment)

    def after(self, params: dict[str, Any], carry: States, segment: Lookup) -> States:
        """The carry after a segment."""
        return after(carry, segment)

    def rate(self, params: dict[str, Any], user: jax.Array, item: jax.Array) -> jax.Array:
        """Ratings [n] from rows [n, D + 1]."""
        return self._options.mean + product(user, item)

    def rank(self, params: dict[str, Any], user: jax.Array, item: jax.Array) -> jax.Array:
        """Predicted ratings [n, m] less the mean."""
        return products(user, item)


def product(user: jax.Array, item: jax.Array) -> jax.Array:
    """[n] of rows [n, D + 1] each, the last column a bias."""
    return (user[:, :-1] * item[:, :-1]).sum(1) + user[:, -1] + item[:, -1]


def products(user: jax.Array, item: jax.Array) -> jax.Array:
    """[n, m] of rows [n, D + 1] and [m, D + 1]."""
    return user[:, :-1] @ item[:, :-1].T + user[:, -1:] + item[:, -1][None, :]

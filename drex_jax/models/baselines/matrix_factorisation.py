"""Biased matrix factorisation (Koren, Bell and Volinsky, 2009), fitted on train ratings by gradient descent."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.data.events import Events
from drex_jax.devices.axis import ALONE, Axis
from drex_jax.models import losses
from drex_jax.models.lookup import LookupStream, unchanging
from drex_jax.models.protocol import Loss, Model, Params, States
from drex_jax.models.source import Source

BATCH_SIZE = 1024


class RatingBatch(NamedTuple):
    """Users, items and their ratings minus the mean; `valid` is false for padding. All [batch_size]."""

    user: Any
    item: Any
    target: Any
    valid: Any


@dataclasses.dataclass(frozen=True)
class BiasedProduct(Model):
    """A model that predicts mean + b_u + b_i + <p_u, q_i> from rows whose last column is the bias.

    The rows of unknown users and items are zeros.

    Attributes:
      mean: the mean of the train ratings.
    """

    mean: float

    def rate(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Return the predicted ratings [n] of rows [n, D + 1]."""
        return self.mean + product(user, item)

    def rank(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Return the predicted ratings [n, m] minus the mean."""
        return user[:, :-1] @ item[:, :-1].T + user[:, -1:] + item[:, -1][None, :]

    def directions(self, items: jax.Array) -> jax.Array:
        """Return the rows of items without their bias."""
        return items[:, :-1]


@dataclasses.dataclass(frozen=True)
class MatrixFactorisation(BiasedProduct):
    """Factors and biases of users and items.

    Attributes:
      l2: the weight of the squared factors and biases of the users and items in a batch.
      num_users, num_items: U and I.
      size: D, the number of factors.
    """

    l2: float
    num_users: int
    num_items: int
    size: int = 16

    def init(self, key: jax.Array) -> Params:
        """Return factors and biases, [U, D + 1] and [I, D + 1]; the last column is the bias."""
        keys = jax.random.split(key)
        shapes = (("user", self.num_users), ("item", self.num_items))
        return {
            name: (0.1 * jax.random.normal(k, (n, self.size + 1))).at[:, -1].set(0.0)
            for k, (name, n) in zip(keys, shapes, strict=True)
        }

    def loss(self, params: Params, carry: States, batch: RatingBatch, key: jax.Array, axis: Axis = ALONE) -> Loss:
        """Return the squared error plus the L2 penalty."""
        own = RatingBatch(*(axis.shard(jnp.asarray(column)) for column in batch))
        user, item = params["user"][own.user], params["item"][own.item]
        error = losses.squared_error(product(user, item), own.target, own.valid, axis)
        weight = own.valid[:, None] / jnp.maximum(axis.psum(own.valid.sum()), 1)
        penalty = (weight * (user**2 + item**2)).sum()
        return error + self.l2 * penalty, (carry, {"rating_loss": error})

    @classmethod
    def build(cls, source: Source) -> RatingStream:
        """Return the stream for a run."""
        events = source.events
        mean = float(np.nanmean(source.train.rating, dtype=np.float64))
        model = cls(mean, source.constants["l2"], events.num_users, events.num_items)
        return RatingStream(model, events, source.sizes, seed=source.seed, devices=len(source.context.devices))


class RatingStream(LookupStream):
    """The train ratings in random batches. Users and items without a train rating have rows of zeros."""

    model: MatrixFactorisation
    chunk = 16

    def __init__(
        self,
        model: MatrixFactorisation,
        events: Events,
        sizes: tuple[int, int, int],
        batch_size: int = BATCH_SIZE,
        seed: int = 0,
        devices: int = 1,
    ):
        """Prepare batches, padded to a multiple of `devices`. The ratings of a batch do not depend on it."""
        super().__init__(model, unchanging(events, sizes))
        self.seed, self._batch_size = seed, batch_size
        self._padded = -(-batch_size // devices) * devices
        self._rows = np.flatnonzero(events.has_rating[: sizes[0]])
        self._events = events
        self._known_user = np.isin(np.arange(events.num_users), events.user[self._rows])[:, None]
        self._known_item = np.isin(np.arange(events.num_items), events.item[self._rows])[:, None]

    def start(self, params: Params) -> States:
        """Return the factors of the users and items of train; zeros for others."""
        return States(params["user"] * self._known_user, params["item"] * self._known_item)

    def steps_per_epoch(self) -> int:
        """Return the number of batches."""
        return -(-len(self._rows) // self._batch_size)

    def batches(self, epoch: int) -> Iterator[RatingBatch]:
        """Yield all train ratings in a random order."""
        rows = np.random.default_rng((self.seed, epoch)).permutation(self._rows)
        size, events = self._batch_size, self._events
        for begin in range(0, len(rows), size):
            chosen = rows[begin : begin + size]
            padded = np.pad(chosen, (0, self._padded - len(chosen)), mode="edge")
            target = events.rating[padded] - np.float32(self.model.mean)
            yield RatingBatch(events.user[padded], events.item[padded], target, np.arange(self._padded) < len(chosen))

    def step_bytes(self) -> int:
        """Return an estimate of the bytes of a step: parameters, their gradient and the optimizer's two moments."""
        return 4 * 5 * (self.model.size + 1) * (self._events.num_users + self._events.num_items)


def product(user: jax.Array, item: jax.Array) -> jax.Array:
    """Return <p_u, q_i> + b_u + b_i, [n], from two tables of rows [n, D + 1] whose last column is the bias."""
    return (user[:, :-1] * item[:, :-1]).sum(1) + user[:, -1] + item[:, -1]

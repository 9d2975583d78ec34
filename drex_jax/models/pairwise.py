"""What rankers that learn from pairs share: batches, negatives, the BPR loss, rows for evaluation.

Every distinct train pair of a user and an item is a positive, whatever its rating. Everyone has a row of an embedding
table that a model makes of its parameters; a score is the product of two rows.

Letters: U users, I items, B pairs of a batch, D row size, N = U + I nodes of the graph of users and items, in which
item i is node U + i.
"""

from __future__ import annotations

import abc
import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.data.events import Events, train_pairs
from drex_jax.devices.axis import ALONE, Axis
from drex_jax.models import losses
from drex_jax.models.closed_form import Lookup, after, observe, unchanging
from drex_jax.models.graph.sampling import draw_negatives, seen
from drex_jax.models.protocol import Params, States, Trace
from drex_jax.models.settings import RankerSettings

CHUNK, CHUNK_ROWS = 32, 1 << 21  # updates in one call of the device, and rows of tables that they may pass in all


@dataclasses.dataclass(frozen=True)
class RankerOptions(RankerSettings):
    """The settings, and the seed of the order of pairs."""

    seed: int = 0


class Rows(NamedTuple):
    """The rows of a batch: users, their positives and their negatives.

    Attributes:
      user, item, negative: [B, D], scored by their products.
      penalised: arrays [B, ...] whose squares are the L2 term.
      loss: of the model's own, over the whole batch, already this device's share.
      figures: to log, shares as well.
    """

    user: jax.Array
    item: jax.Array
    negative: jax.Array
    penalised: Sequence[jax.Array]
    loss: jax.Array | float = 0.0
    figures: Mapping[str, jax.Array] = {}


class Pairs(NamedTuple):
    """Numbers of a batch; padding is not valid. All [B]."""

    user: Any
    item: Any
    negative: Any
    valid: Any


class Batch(NamedTuple):
    """One step's input: pairs of users and items [B], which are real, and what never changes."""

    user: Any
    item: Any
    valid: Any
    constants: Any


class Pairwise(abc.ABC):
    """A ranker trained by BPR (Rendle et al., UAI 2009) with one uniform negative, not in train, for each pair.

    Subclasses make rows. Their `constants` are a tree of arrays that never change: graphs, features.
    """

    rates = False
    ranks = True

    def __init__(
        self, options: RankerOptions, events: Events, sizes: tuple[int, int, int], constants: Any, devices: int = 1
    ):
        """Prepares batches.

        Args:
          options: sizes and weights.
          events: all interactions, in the order of learning.
          sizes: how many of them are train, validation and test.
          constants: of the model.
          devices: a batch is padded to divide by their number; its pairs are the same on any.
        """
        self.user, self.item = train_pairs(events, sizes)
        self.num_users, self.num_items = events.num_users, events.num_items
        self.options = dataclasses.replace(options, batch_size=min(options.batch_size, len(self.user)))
        self._padded = -(-self.options.batch_size // devices) * devices
        self.chunk = max(1, min(CHUNK, CHUNK_ROWS // (self.num_users + self.num_items)))
        self._train_items = int(self.item.max(initial=-1)) + 1  # they are numbered first
        seen_items = seen(self.user, self.item, self.num_users)
        self._constants = jax.tree.map(_read_only, (seen_items, constants))
        self._segments = unchanging(events, sizes)
        self._carried, self._final = jax.jit(self.carried), jax.jit(self._rows_of_everyone)

    # What a model adds

    @abc.abstractmethod
    def init(self, key: jax.Array) -> Params:
        """Parameters."""

    @abc.abstractmethod
    def everyone(self, params: Params, constants: Any, carry: Any) -> tuple[jax.Array, jax.Array]:
        """Rows of all users [U, D] and items [I, D]."""

    def carried(self, params: Params, constants: Any, key: jax.Array) -> Any:
        """What an epoch's batches share beside constants, made at its start: a graph that is sampled or learned."""
        return ()

    def settled(self, params: Params, constants: Any) -> Any:
        """The same for predictions."""
        return ()

    @abc.abstractmethod
    def rows(self, params: Params, constants: Any, carry: Any, pairs: Pairs, key: jax.Array, axis: Axis) -> Rows:
        """The rows of this device's share of a batch, and terms of the model's own."""

    def nodes(self, pairs: Pairs) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Users, positives and negatives as nodes of the graph of users and items: [B] each."""
        return pairs.user, self.num_users + pairs.item, self.num_users + pairs.negative

    # The model protocol

    def with_seed(self, seed: int) -> Pairwise:
        """The same with another order of the pairs."""
        other = copy.copy(self)
        other.options = dataclasses.replace(self.options, seed=seed)
        return other

    def start(self, params: Params) -> States:
        """Everyone's final rows."""
        return self._final(params, self._constants[1])

    def renew(self, params: Params, carry: Any, epoch: int, key: jax.Array) -> Any:
        """`carried`, made anew."""
        return self._carried(params, self._constants[1], key)

    def steps_per_epoch(self) -> int:
        """Batches."""
        return -(-len(self.user) // self.options.batch_size)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """All pairs in a random order."""
        rows = np.random.default_rng((self.options.seed, epoch)).permutation(len(self.user))
        size = self.options.batch_size
        for begin in range(0, len(rows), size):
            chosen = rows[begin : begin + size]
            padded = np.pad(chosen, (0, self._padded - len(chosen)), mode="edge")
            yield Batch(self.user[padded], self.item[padded], np.arange(self._padded) < len(chosen), self._constants)

    def loss(
        self, params: Params, carry: Any, batch: Batch, key: jax.Array, axis: Axis = ALONE
    ) -> tuple[jax.Array, tuple[Any, Mapping[str, jax.Array]]]:
        """BPR, L2, and what the model adds."""
        seen_items, constants = batch.constants
        first, second = jax.random.split(key)
        negative = draw_negatives(first, seen_items, batch.user, self._train_items)
        pairs = Pairs(*(axis.shard(jnp.asarray(each)) for each in (batch.user, batch.item, negative, batch.valid)))
        rows = self.rows(params, constants, carry, pairs, second, axis)
        scores = (rows.user * rows.item).sum(1), (rows.user * rows.negative).sum(1)
        ranking = losses.bpr(scores[0], scores[1][:, None], pairs.valid[:, None], axis)
        weight = pairs.valid / jnp.maximum(axis.psum(pairs.valid.sum()), 1)
        penalty = sum((weight * (each**2).sum(1)).sum() for each in rows.penalised)
        total = ranking + self.options.l2 * penalty + rows.loss
        return total, (carry, {"ranking_loss": ranking, **rows.figures})

    def step_bytes(self) -> int:
        """About how much memory a training step takes.

        Parameters and both moments before and after it, the gradient, the best parameters so far; what an epoch
        carries, before and after; tables of each layer, there and back; constants.
        """

        def size(tree: Any) -> int:
            return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

        params = jax.eval_shape(self.init, jax.random.key(0))
        carry = jax.eval_shape(self.carried, params, self._constants[1], jax.random.key(0))
        tables = 4 * self.options.size * (self.num_users + self.num_items) * 2 * (self.options.layers + 2)
        return 8 * size(params) + 2 * size(carry) + tables + size(self._constants)

    def segments(self) -> tuple[Lookup, ...]:
        """Train, validation and test."""
        return self._segments

    def observe(self, params: Params, carry: States, segment: Lookup) -> tuple[States, Trace]:
        """Nothing changes."""
        return observe(carry, segment)

    def after(self, params: Params, carry: States, segment: Lookup) -> States:
        """The carry after a segment."""
        return after(carry, segment)

    def rate(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Never called: it predicts no ratings."""
        raise TypeError(f"{type(self).__name__} ranks and predicts no ratings")

    def rank(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Products [n, m] of rows [n, D] and [m, D]."""
        return user @ item.T

    def _rows_of_everyone(self, params: Params, constants: Any) -> States:
        return States(*self.everyone(params, constants, self.settled(params, constants)))


def xavier(key: jax.Array, rows: int, columns: int) -> jax.Array:
    """Uniform float32 [rows, columns] of Glorot and Bengio (2010), as the public implementations start embeddings."""
    bound = math.sqrt(6 / (rows + columns))
    return jax.random.uniform(key, (rows, columns), minval=-bound, maxval=bound)


def _read_only(leaf: Any) -> np.ndarray:
    """The array as a constant of batches: on the devices once."""
    values = np.asarray(leaf)
    if values.flags.writeable:
        values = values.copy()
        values.flags.writeable = False
    return values

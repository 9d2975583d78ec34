"""The base class of rankers that learn from pairs: batches, negatives, the BPR loss, rows for evaluation.

Every distinct train pair of a user and an item is a positive, with any rating. The model computes a row for each
user and item from its parameters and constants (graphs, features). A score is the inner product of two rows.

Letters: U users, I items, B pairs of a batch, E train pairs, D row size, N = U + I nodes of the graph of users and
items, in which item i is node U + i.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.data.events import Events
from drex_jax.devices.axis import ALONE, Axis
from drex_jax.models import losses
from drex_jax.models.graph.sampling import draw_negatives, seen
from drex_jax.models.lookup import LookupStream, unchanging
from drex_jax.models.protocol import Loss, Model, Params, States
from drex_jax.models.source import Source

CHUNK, CHUNK_ROWS = 32, 1 << 21  # limits of one device call: updates, and table rows processed by all its updates


@dataclasses.dataclass(frozen=True)
class TrainPairs:
    """The distinct train pairs, and the features of items.

    Attributes:
      user, item: int32 [E], the pairs in ascending order.
      num_users, num_items: U and I.
      features: numeric features of items by modality, float32 [I, width]; a row of NaN is missing.
    """

    user: np.ndarray
    item: np.ndarray
    num_users: int
    num_items: int
    features: Mapping[str, np.ndarray]

    @classmethod
    def of(
        cls, user: np.ndarray, item: np.ndarray, num_users: int, num_items: int, features: Mapping[str, np.ndarray]
    ) -> Self:
        """Return the distinct pairs of `user` and `item`, int [n] each."""
        user, item = np.divmod(np.unique(user.astype(np.int64) * num_items + item), num_items)
        return cls(user.astype(np.int32), item.astype(np.int32), num_users, num_items, features)


@dataclasses.dataclass(frozen=True)
class TableSizes:
    """The sizes of tables: the numbers of users, of items, and of items in train, which are numbered first."""

    users: int
    items: int
    train_items: int

    @classmethod
    def of(cls, pairs: TrainPairs) -> Self:
        """Return the sizes for these pairs."""
        return cls(pairs.num_users, pairs.num_items, int(pairs.item.max(initial=-1)) + 1)


class Rows(NamedTuple):
    """The rows of a batch: users, their positives and their negatives.

    Attributes:
      user, item, negative: [B, D]; scores are their inner products.
      penalised: arrays [B, ...] whose squares are summed in the L2 penalty.
      loss: this device's share of the model's additional loss over the whole batch.
      figures: values to log, this device's shares of them.
    """

    user: jax.Array
    item: jax.Array
    negative: jax.Array
    penalised: Sequence[jax.Array]
    loss: jax.Array | float = 0.0
    figures: Mapping[str, jax.Array] = {}


class Pairs(NamedTuple):
    """The users, positives and negatives of a batch by number; `valid` is false for padding. All [B]."""

    user: Any
    item: Any
    negative: Any
    valid: Any


class PairBatch(NamedTuple):
    """The input of one step: pairs of users and items [B], `valid` (false for padding), (seen items, constants)."""

    user: Any
    item: Any
    valid: Any
    constants: Any


@dataclasses.dataclass(frozen=True)
class Pairwise(Model):
    """A ranker trained by BPR (Rendle et al., UAI 2009) with one uniform negative, not in train, for each pair.

    Subclasses compute the rows. Their constants are a tree of arrays that never change, such as graphs and features;
    `over`, a pure function of the train pairs and the settings, makes them.

    Attributes:
      settings: a group with `batch_size`, `l2` (weight of the squared `Rows.penalised`) and the fields of the model.
      sizes: the sizes of the tables.
    """

    settings: Any
    sizes: TableSizes

    rates = False

    # Methods that subclasses implement or override

    @classmethod
    def over(cls, pairs: TrainPairs, *groups: Any) -> tuple[Self, Any]:
        """Return the model for these train pairs, and its constants.

        Args:
          pairs: the train pairs and the items' features.
          groups: the groups of settings in the order of the model's registry entry.

        Raises:
          UserError: the data lack something that the model reads.
        """
        return cls(groups[0], TableSizes.of(pairs)), ()

    @abc.abstractmethod
    def all_rows(self, params: Params, constants: Any, carry: Any) -> tuple[jax.Array, jax.Array]:
        """Return the rows of all users [U, D] and items [I, D]."""

    @abc.abstractmethod
    def rows(self, params: Params, constants: Any, carry: Any, pairs: Pairs, key: jax.Array, axis: Axis) -> Rows:
        """Return the rows of this device's share of a batch, and the additional terms of the model's loss."""

    def carried(self, params: Params, constants: Any, key: jax.Array) -> Any:
        """Return the carry of an epoch, which its batches share beside the constants: a sampled or learned graph."""
        return ()

    def renews(self, epoch: int) -> bool:
        """Return True if an epoch begins with `carried`, and False if it begins with `recarried`."""
        return True

    def recarried(self, params: Params, constants: Any, carry: Any, key: jax.Array) -> Any:
        """Return the carry of an epoch that keeps a part of the previous epoch's carry."""
        return carry

    def settled(self, params: Params, constants: Any) -> Any:
        """Return the carry that predictions use."""
        return ()

    def given(self, pairs: TrainPairs) -> Params:
        """Return the parameters that are initialised from the data, by name; `init` makes the others."""
        return {}

    def grown(self, params: Params, known: TableSizes) -> Params:
        """Return trained parameters with room for the users and items that appeared after training.

        Args:
          params: the parameters trained on `known` users and items; new ones are numbered after them.
          known: the sizes of the tables during training.
        """
        raise TypeError(f"{type(self).__name__} cannot learn from pairs after training")

    def modality_shares(self, params: Params, constants: Any) -> tuple[jax.Array, jax.Array] | None:
        """Return the share of each modality in an item's content [M, I], and the content [I, D]; None: no content."""
        return None

    # Methods that all subclasses share

    def nodes(self, pairs: Pairs) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return users, positives and negatives as nodes of the graph of users and items: [B] each."""
        return pairs.user, self.sizes.users + pairs.item, self.sizes.users + pairs.negative

    def loss(self, params: Params, carry: Any, batch: PairBatch, key: jax.Array, axis: Axis = ALONE) -> Loss:
        """Return the sum of the BPR loss, the L2 penalty and the model's additional loss."""
        seen_items, constants = batch.constants
        first, second = jax.random.split(key)
        negative = draw_negatives(first, seen_items, batch.user, self.sizes.train_items)
        pairs = Pairs(*(axis.shard(jnp.asarray(each)) for each in (batch.user, batch.item, negative, batch.valid)))
        rows = self.rows(params, constants, carry, pairs, second, axis)
        scores = (rows.user * rows.item).sum(1), (rows.user * rows.negative).sum(1)
        ranking = losses.bpr(scores[0], scores[1][:, None], pairs.valid[:, None], axis)
        weight = pairs.valid / jnp.maximum(axis.psum(pairs.valid.sum()), 1)
        penalty = sum((weight * (each**2).sum(1)).sum() for each in rows.penalised)
        total = ranking + self.settings.l2 * penalty + rows.loss
        return total, (carry, {"ranking_loss": ranking, **rows.figures})

    def rank(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Return the inner products [n, m] of rows [n, D] and [m, D]."""
        return user @ item.T

    def score(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Return the inner products [n] of rows [n, D]."""
        return (user * item).sum(1)

    def cold_start(self, params: Params, states: States) -> tuple[jax.Array, jax.Array]:
        """Return the mean rows (our choice): an unknown user gets the list of the average user."""
        return states.user.mean(0), states.item.mean(0)

    def final(self, params: Params, constants: Any) -> States:
        """Return the rows that predictions read."""
        return States(*self.all_rows(params, constants, self.settled(params, constants)))

    @classmethod
    def stream(
        cls, events: Events, sizes: tuple[int, int, int], *groups: Any, seed: int = 0, devices: int = 1
    ) -> PairStream:
        """Return the model's stream over a data set.

        Args:
          events: all interactions, in the order of learning.
          sizes: the numbers of train, validation and test interactions.
          groups: the groups of settings, as for `over`.
          seed: the seed of the order of the pairs.
          devices: the number of devices; a batch is padded to a multiple of it. Its pairs do not depend on it.

        Raises:
          UserError: as for `over`.
        """
        train = events[: sizes[0]]
        pairs = TrainPairs.of(train.user, train.item, events.num_users, events.num_items, events.item_vectors)
        model, constants = cls.over(pairs, *groups)
        return PairStream(model, constants, pairs, events, sizes, seed, devices)

    @classmethod
    def build(cls, source: Source) -> PairStream:
        """Return the stream for a run."""
        devices = len(source.context.devices)
        return cls.stream(source.events, source.sizes, *source.groups, seed=source.seed, devices=devices)


@partial(jax.jit, static_argnums=0)
def final_rows(model: Pairwise, params: Params, constants: Any) -> States:
    """Call `Pairwise.final`, compiled once for equal models and arrays of the same shapes."""
    return model.final(params, constants)


class PairStream(LookupStream):
    """The train pairs in random batches; nothing is learned from validation and test."""

    model: Pairwise

    def __init__(
        self,
        model: Pairwise,
        constants: Any,
        pairs: TrainPairs,
        events: Events,
        sizes: tuple[int, int, int],
        seed: int = 0,
        devices: int = 1,
    ):
        """Prepare batches. Arguments are those of `Pairwise.stream`, and the result of `Pairwise.over`."""
        super().__init__(model, unchanging(events, sizes))
        self.pairs, self.seed = pairs, seed
        self.batch_size = min(model.settings.batch_size, len(pairs.user))
        self._padded = -(-self.batch_size // devices) * devices
        self.chunk = max(1, min(CHUNK, CHUNK_ROWS // (pairs.num_users + pairs.num_items)))
        seen_items = seen(pairs.user, pairs.item, pairs.num_users)
        self._constants = jax.tree.map(_read_only, (seen_items, constants))
        self._carried, self._recarried = jax.jit(model.carried), jax.jit(model.recarried)

    @property
    def constants(self) -> Any:
        """The model's constants, as read-only NumPy arrays."""
        return self._constants[1]

    def init(self, key: jax.Array) -> Params:
        """Return new parameters, including those that are initialised from the data's features."""
        return self.model.init(key) | self.model.given(self.pairs)

    def start(self, params: Params) -> States:
        """Return the rows that predictions read."""
        return final_rows(self.model, params, self.constants)

    def renew(self, params: Params, carry: Any, epoch: int, key: jax.Array) -> Any:
        """Return the carry that the batches of an epoch share."""
        if carry is None or self.model.renews(epoch):
            return self._carried(params, self.constants, key)
        return self._recarried(params, self.constants, carry, key)

    def steps_per_epoch(self) -> int:
        """Return the number of batches."""
        return -(-len(self.pairs.user) // self.batch_size)

    def batches(self, epoch: int) -> Iterator[PairBatch]:
        """Yield all pairs in a random order."""
        rows = np.random.default_rng((self.seed, epoch)).permutation(len(self.pairs.user))
        size, pairs = self.batch_size, self.pairs
        for begin in range(0, len(rows), size):
            chosen = rows[begin : begin + size]
            padded = np.pad(chosen, (0, self._padded - len(chosen)), mode="edge")
            valid = np.arange(self._padded) < len(chosen)
            yield PairBatch(pairs.user[padded], pairs.item[padded], valid, self._constants)

    def step_bytes(self) -> int:
        """Return an estimate of the bytes that a training step takes on a device.

        It counts the parameters and both moments before and after the step, the gradient, the best parameters so far,
        the carry before and after, the tables of each layer in the forward and the backward pass, and the constants.
        """

        def size(tree: Any) -> int:
            return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

        params = jax.eval_shape(self.init, jax.random.key(0))
        carry = jax.eval_shape(self.model.carried, params, self.constants, jax.random.key(0))
        tables = size(jax.eval_shape(self.model.final, params, self.constants))
        layers = 2 + getattr(self.model.settings, "layers", 0)
        return 8 * size(params) + 2 * size(carry) + 2 * layers * tables + size(self._constants)


def xavier(key: jax.Array, rows: int, columns: int) -> jax.Array:
    """Draw float32 [rows, columns] uniformly (Glorot and Bengio, 2010), like embeddings in public implementations."""
    bound = math.sqrt(6 / (rows + columns))
    return jax.random.uniform(key, (rows, columns), minval=-bound, maxval=bound)


def _read_only(leaf: Any) -> np.ndarray:
    """Return the array as read-only: constant over batches, so that it is copied to the devices once."""
    values = np.asarray(leaf)
    if values.flags.writeable:
        values = values.copy()
        values.flags.writeable = False
    return values

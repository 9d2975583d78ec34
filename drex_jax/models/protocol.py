"""The two halves of every recommender: a `Model`, which is pure, and a `Stream`, which holds the data.

A `Model` is a frozen dataclass of options with pure functions. It holds no data and knows no files and no other model,
so a finished run makes one from a few constants in JSON. A `Stream` walks over one data set for a model: batches to
train on, and train, validation and test as segments to observe. Training and evaluation take a stream; serving takes a
model.

Letters: n and m rows, U users, I items, E row size, D size of what items are compared by.
"""

from __future__ import annotations

import abc
import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, Self

import jax
import jax.numpy as jnp

from drex_jax.data.events import Events
from drex_jax.devices.axis import ALONE, Axis, Program
from drex_jax.models.constants import from_json, to_json
from drex_jax.models.source import Source
from drex_jax.text.encoder import TextEncoder

Params = Any
Batch = Any
Compile = Callable[[Program], Callable[..., Any]]
Loss = tuple[jax.Array, tuple[Any, Mapping[str, jax.Array]]]


def compile_alone(program: Program) -> Callable[..., Any]:
    """A `Compile` for one device: program(axis, *arguments) as a compiled function of the arguments."""
    return jax.jit(lambda *arguments: program(ALONE, *arguments))


class States(NamedTuple):
    """The rows of all users and items at one moment; a row is all that a prediction reads of a user or an item.

    Attributes:
      user: [U, E].
      item: [I, E].
    """

    user: jax.Array
    item: jax.Array


class Trace(NamedTuple):
    """The rows of each of n interactions, at its own moment.

    Attributes:
      user_before, item_before: [n, E], just before it: the prediction reads them.
      item_after: [n, E], just after it.
    """

    user_before: jax.Array
    item_before: jax.Array
    item_after: jax.Array


class Segment(Protocol):
    """A stretch of interactions prepared for `Stream.observe`."""

    def __len__(self) -> int: ...


class Model(abc.ABC):
    """Options and pure functions. Subclasses are frozen dataclasses, so that equal models share compiled programs.

    Attributes:
      rates: predicts ratings.
      ranks: orders items.
      Settings, needs, updates: of a user's own model, whose registry entry is made of them: the dataclass of its
        settings (group `own`), what it needs of train (`ratings`, `texts`), and how a finished run of it learns from
        new interactions (see `drex_jax.models.entry.Updates`; empty: it does not).
    """

    rates: bool = True
    ranks: bool = True
    Settings: type | None = None
    needs: tuple[str, ...] = ()
    updates: str = ""

    @abc.abstractmethod
    def init(self, key: jax.Array) -> Params:
        """Return new parameters; those of a closed-form model are final."""

    def loss(self, params: Params, carry: Any, batch: Batch, key: jax.Array, axis: Axis = ALONE) -> Loss:
        """Return (loss, (carry after the batch, figures to log)): of loss and figures, this device's share."""
        raise TypeError(f"{type(self).__name__} is closed-form and has no loss")

    def rate(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Return predicted ratings [n], not clipped, of rows [n, E]."""
        raise TypeError(f"{type(self).__name__} ranks and predicts no ratings")

    @abc.abstractmethod
    def rank(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Return ranking scores [n, m] of rows [n, E] and [m, E]."""

    def score(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Return predicted ratings [n] of rows [n, E]; of a model that only ranks, ranking scores."""
        return self.rate(params, user, item)

    def cold_start(self, params: Params, states: States) -> tuple[jax.Array, jax.Array]:
        """Return the row [E] of an unknown user and that of an unknown item; zeros unless the model says more."""
        return jnp.zeros_like(states.user[0]), jnp.zeros_like(states.item[0])

    def directions(self, items: jax.Array) -> jax.Array:
        """Return the vectors [I, D] whose cosines say how alike items with rows [I, E] are."""
        return items

    def constants(self) -> dict[str, Any]:
        """Return what `from_constants` needs, as JSON can hold it."""
        return to_json(self)

    @classmethod
    def from_constants(cls, constants: Any) -> Self:
        """Return the model of a finished run.

        Raises:
          UserError: the constants are damaged.
        """
        return from_json(cls, constants)

    @classmethod
    def build(cls, source: Source) -> Stream:
        """Return the stream for a run, unless the registry entry names another builder."""
        raise NotImplementedError

    @property
    def text_encoder(self) -> TextEncoder | None:
        """The encoder of reviews, whose parameters are `params["text"]`; None: the model reads no texts."""
        return None

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that the model reads of each interaction it observes, each of which may be missing."""
        return ()


class Stream(abc.ABC):
    """A model's way through one data set.

    Attributes:
      model: the model.
      seed: of the random draws in batches.
      chunk: most updates in one call of the device, after which a run can stop.
      width: interactions a step of a recurrence; 0 without one.
    """

    model: Any
    seed: int = 0
    chunk: int = 1
    width: int = 0

    def with_seed(self, seed: int) -> Self:
        """Return a copy with other random draws; what is prepared, constant arrays included, is shared."""
        other = copy.copy(self)
        other.seed = seed
        return other

    def init(self, key: jax.Array) -> Params:
        """Return new parameters."""
        return self.model.init(key)

    @abc.abstractmethod
    def start(self, params: Params) -> States:
        """Return all rows before the first interaction."""

    def renew(self, params: Params, carry: Any, epoch: int, key: jax.Array) -> Any:
        """Return what training carries from batch to batch, at the start of an epoch.

        `carry` is what the epoch before it ended with, None before the first. Pure and without host code, so that
        several seeds can do it as one.
        """
        return self.start(params)

    def steps_per_epoch(self) -> int:
        """Return the number of optimizer updates of an epoch; 0 for a closed-form model."""
        return 0

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the train batches of an epoch, one a step, of one fixed shape. Read-only arrays never change."""
        return iter(())

    def step_bytes(self) -> int:
        """Return about how much memory one training step takes on a device, batch included."""
        return 0

    @abc.abstractmethod
    def segments(self) -> tuple[Segment, ...]:
        """Return train, validation and test, prepared once: each continues where the one before it ends."""

    @abc.abstractmethod
    def observe(self, params: Params, states: States, segment: Any) -> tuple[States, Trace]:
        """Return the rows after a segment, and those of each of its interactions at its own moment."""

    def after(self, params: Params, states: States, segment: Any) -> States:
        """Return the rows after a segment, as `observe` gives them, without the memory that a trace takes."""
        return self.observe(params, states, segment)[0]

    def test_with(self, test: Events) -> Segment:
        """Return the test segment with modalities missing; of models whose `modalities` are not empty."""
        raise TypeError(f"{type(self.model).__name__} reads nothing of an interaction that could be missing")

    def pretrained(self) -> tuple[Params, float] | None:
        """Return parameters to begin with, a part of the model's, and the peak of their learning rate; None: none."""
        return None

    def schedule(self) -> dict[str, Any] | None:
        """Return what the schedules of the train windows came to, for results; None without schedules."""
        return None

    def review_attention(self, params: Params) -> tuple[Any, Any] | None:
        """Return which train reviews count for users and for items, and how much; None: the model does not say."""
        return None

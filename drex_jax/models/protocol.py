"""The two halves of every recommender: a `Model`, which is pure, and a `Stream`, which holds the data.

A `Model` is a frozen dataclass of options with pure functions. It holds no data and refers to no files and no other
model, so a finished run makes it from a few constants in JSON. A `Stream` passes one data set to a model: batches for
training, and the segments train, validation and test to observe. Training and evaluation take a stream; serving takes
a model.

Letters: n and m rows, U users, I items, E row size, D size of the vectors by which items are compared.
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
    """Return program(axis, *arguments) as a compiled function of the arguments, on one device: a `Compile`."""
    return jax.jit(lambda *arguments: program(ALONE, *arguments))


class States(NamedTuple):
    """The rows of all users and items at one moment. Predictions read nothing else of a user or an item.

    Attributes:
      user: [U, E], the rows of all users.
      item: [I, E], the rows of all items.
    """

    user: jax.Array
    item: jax.Array


class Trace(NamedTuple):
    """The rows of each of n interactions at the time of the interaction.

    Attributes:
      user_before, item_before: [n, E], the rows just before it, which the prediction reads.
      item_after: [n, E], the row of the item just after it.
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
      rates: true if the model predicts ratings.
      ranks: true if the model ranks items.
      Settings: the dataclass of the settings of a user's own model (group `own`). This and the next two attributes
        make the registry entry of such a model.
      needs: the kinds of data that a user's own model requires of train: `ratings`, `texts`.
      updates: how a finished run of a user's own model learns from new interactions (see
        `drex_jax.models.entry.Updates`); empty: it does not.
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
        """Return (loss, (carry after the batch, values to log)); loss and values are this device's shares."""
        raise TypeError(f"{type(self).__name__} is closed-form and has no loss")

    def rate(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Return the predicted ratings [n] of rows [n, E], not clipped."""
        raise TypeError(f"{type(self).__name__} ranks and predicts no ratings")

    @abc.abstractmethod
    def rank(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Return ranking scores [n, m] of rows [n, E] and [m, E]."""

    def score(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Return the predicted ratings [n] of rows [n, E]; a model that only ranks returns ranking scores."""
        return self.rate(params, user, item)

    def cold_start(self, params: Params, states: States) -> tuple[jax.Array, jax.Array]:
        """Return the row [E] of an unknown user and that of an unknown item; zeros unless a model overrides this."""
        return jnp.zeros_like(states.user[0]), jnp.zeros_like(states.item[0])

    def directions(self, items: jax.Array) -> jax.Array:
        """Return vectors [I, D] of items with rows [I, E]; their cosine is the similarity of two items."""
        return items

    def constants(self) -> dict[str, Any]:
        """Return the argument of `from_constants`, as values that JSON can hold."""
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
        """The modalities that the model reads from each observed interaction; each may be missing."""
        return ()


class Stream(abc.ABC):
    """The interactions of one data set, prepared for a model.

    Attributes:
      model: the model.
      seed: the seed of the random draws in batches.
      chunk: the largest number of updates in one device call; a run can stop between calls.
      width: the number of interactions in a step of the recurrence; 0 without a recurrence.
    """

    model: Any
    seed: int = 0
    chunk: int = 1
    width: int = 0

    def with_seed(self, seed: int) -> Self:
        """Return a copy with other random draws; it shares all prepared data, including constant arrays."""
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
        """Return the carry at the start of an epoch; training passes it from batch to batch.

        `carry` is the carry at the end of the previous epoch, None before the first. The function is pure and has no
        host code, so that it can be mapped over several seeds.
        """
        return self.start(params)

    def steps_per_epoch(self) -> int:
        """Return the number of optimizer updates of an epoch; 0 for a closed-form model."""
        return 0

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield one train batch for each step of an epoch, all of one shape. Read-only arrays never change."""
        return iter(())

    def step_bytes(self) -> int:
        """Return an estimate of the bytes that one training step takes on a device, including the batch."""
        return 0

    @abc.abstractmethod
    def segments(self) -> tuple[Segment, ...]:
        """Return the train, validation and test segments, prepared once; each continues where the previous one ends."""

    @abc.abstractmethod
    def observe(self, params: Params, states: States, segment: Any) -> tuple[States, Trace]:
        """Return the rows after a segment, and the rows of each of its interactions at the time of the interaction."""

    def after(self, params: Params, states: States, segment: Any) -> States:
        """Return the rows after a segment, like `observe`, but without the memory that a trace takes."""
        return self.observe(params, states, segment)[0]

    def test_with(self, test: Events) -> Segment:
        """Return the test segment for interactions that lack modalities. Only for models with `modalities`."""
        raise TypeError(f"{type(self.model).__name__} reads nothing of an interaction that could be missing")

    def pretrained(self) -> tuple[Params, float] | None:
        """Return pretrained values of some parameters, and their peak learning rate; None: nothing is pretrained."""
        return None

    def schedule(self) -> dict[str, Any] | None:
        """Return figures about the schedules of the train windows, for the results; None without schedules."""
        return None

    def review_attention(self, params: Params) -> tuple[Any, Any] | None:
        """Return the train reviews that represent users and items, with their weights; None: the model has none."""
        return None

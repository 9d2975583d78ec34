"""What a model is to the loop and the evaluator. All of it is pure; nothing here knows files or checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import jax

from drex_jax.devices.axis import ALONE, Axis, Program

Params = Any
Batch = Any
Compile = Callable[[Program], Callable[..., Any]]


def compile_alone(program: Program) -> Callable[..., Any]:
    """A `Compile` for one device: program(axis, *arguments) as a compiled function of the arguments."""
    return jax.jit(lambda *arguments: program(ALONE, *arguments))


class States(NamedTuple):
    """What a model knows of everyone at one moment; a row is all that a prediction reads of a user or an item.

    Attributes:
      user: [U, E].
      item: [I, E].
    """

    user: jax.Array
    item: jax.Array


class Trace(NamedTuple):
    """The rows of each of n interactions, at its own moment.

    Attributes:
      user_before, item_before: [n, E], just before it: what predicts it.
      item_after: [n, E], just after it.
    """

    user_before: jax.Array
    item_before: jax.Array
    item_after: jax.Array


class Segment(Protocol):
    """A stretch of interactions prepared for `Model.observe`."""

    def __len__(self) -> int: ...


class Model(Protocol):
    """A recommender. Everything the loop, the evaluator and a finished run need of one.

    Attributes:
      rates: predicts ratings.
      ranks: orders items.
      chunk: at most so many updates in one call of the device, after which a run can stop.
    """

    rates: bool
    ranks: bool
    chunk: int

    def with_seed(self, seed: int) -> Model:
        """The same with other random draws in its batches; what is prepared, constant arrays included, is shared."""
        ...

    def init(self, key: jax.Array) -> Params:
        """Parameters; those of a closed-form model are final."""
        ...

    def start(self, params: Params) -> States:
        """Everyone's rows before the first interaction."""
        ...

    def renew(self, params: Params, carry: Any, epoch: int, key: jax.Array) -> Any:
        """What training carries from batch to batch, at the start of an epoch.

        `carry` is what the epoch before it ended with, None before the first. Pure and without host code, so that
        several seeds can do it as one.
        """
        ...

    def steps_per_epoch(self) -> int:
        """Optimizer updates an epoch; 0 for a closed-form model."""
        ...

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The train batches of an epoch, one a step, of one fixed shape. Arrays that are read-only never change."""
        ...

    def loss(
        self, params: Params, carry: Any, batch: Batch, key: jax.Array, axis: Axis = ALONE
    ) -> tuple[jax.Array, tuple[Any, Mapping[str, jax.Array]]]:
        """(loss, (carry after the batch, figures to log)): of loss and figures, this device's share."""
        ...

    def step_bytes(self) -> int:
        """About how much memory the arrays of one training step take on a device, batch included."""
        ...

    def segments(self) -> tuple[Segment, ...]:
        """Train, validation and test, prepared once: each continues where the one before it ends."""
        ...

    def observe(self, params: Params, carry: States, segment: Any) -> tuple[States, Trace]:
        """The rows after a segment, and those of each of its interactions at its own moment."""
        ...

    def after(self, params: Params, carry: States, segment: Any) -> States:
        """The rows after a segment, as `observe` gives them, without the memory that a trace takes."""
        ...

    def rate(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Predicted ratings [n] from rows [n, E], not clipped."""
        ...

    def rank(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Ranking scores [n, m] from rows [n, E] and [m, E]."""
        ...

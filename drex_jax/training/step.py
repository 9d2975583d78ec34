"""One optimizer update over all devices: of one seed, or of several that train together.

Seeds that train together (`replicas`) are one program, vectorised over a leading axis of their states, which is spread
over the devices where their numbers have a common divisor. Where a step's latency and not its arithmetic is what a
run waits for, several seeds then cost little more than one.
"""

from __future__ import annotations

import itertools
import operator
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from drex_jax.devices.axis import Axis, Program
from drex_jax.devices.mesh import Devices
from drex_jax.models.protocol import Batch, Model, Params, Stream

BEGINS = 2**31 - 1  # sets the keys of epochs apart from those of steps, which are numbers below it


class State(NamedTuple):
    """All arrays that continue a run; of several seeds with one more, leading axis. Programs see no `best`."""

    params: Params
    optimizer: Any
    carry: Any
    best: Params


def training_step(
    model: Model, optimizer: optax.GradientTransformation
) -> Callable[..., tuple[State, dict[str, jax.Array]]]:
    """Return one update as a program of one device: (axis, state, batch, seed, step) -> (state, figures to log)."""

    def train_step(
        axis: Axis, state: State, batch: Batch, seed: jax.Array, step: jax.Array
    ) -> tuple[State, dict[str, jax.Array]]:
        grad = jax.value_and_grad(model.loss, has_aux=True)
        key = jax.random.fold_in(jax.random.key(seed), step)
        (loss, (carry, sums)), gradient = grad(state.params, state.carry, batch, key, axis)
        loss, sums, gradient = jax.tree.map(axis.psum, (loss, sums, gradient))
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        norm = optax.tree.norm(gradient)
        return State(params, optimizer_state, carry, ()), {"loss": loss, "gradient_norm": norm, **sums}

    return train_step


class Chunk(NamedTuple):
    """Consecutive batches that one call of the device takes.

    Attributes:
      batches: one batch where a call makes one update; else arrays of `Trainer.chunk` batches stacked, the last ones
        repeated where an epoch ends, and what all batches share once.
      updates: how many of them are real.
    """

    batches: Batch
    updates: int


class Trainer:
    """The training step of some seeds on some devices."""

    def __init__(self, stream: Stream, optimizer: optax.GradientTransformation, seeds: Sequence[int], devices: Devices):
        self._stream, self._optimizer = stream, optimizer
        self._number, self._several = len(seeds), len(seeds) > 1
        self._streams = [stream.with_seed(seed) for seed in seeds]
        self._devices = devices.spread_over(len(seeds))  # with constants of its own, which end with this training
        self._seeds = np.array(seeds, np.uint32) if self._several else np.uint32(seeds[0])
        self.chunk = min(stream.chunk, stream.steps_per_epoch())
        self._changing = _differing(list(itertools.islice(stream.batches(0), 2))) if self.chunk > 1 else None
        self._compiled: Callable[..., tuple[State, dict[str, jax.Array]]] | None = None

    def begin(self, params: list[Params]) -> State:
        """Return the state before the first step, from each seed's new parameters."""
        keys = self._keys(0)
        renewed = [self._stream.renew(each, None, 0, key) for each, key in zip(params, keys, strict=True)]
        states = [
            State(each, self._optimizer.init(each), carry, each) for each, carry in zip(params, renewed, strict=True)
        ]
        together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states) if self._several else states[0]
        return self._devices.place(jax.tree.map(jnp.copy, together), self._several)

    def begin_epoch(self, state: State, epoch: int) -> State:
        """The state with what an epoch starts from, under its parameters."""
        keys = self._keys(epoch)
        if self._several:
            renew = jax.vmap(lambda params, carry, key: self._stream.renew(params, carry, epoch, key))
            carry = renew(state.params, state.carry, jnp.stack(keys))
        else:
            carry = self._stream.renew(state.params, state.carry, epoch, keys[0])
        return state._replace(carry=self._devices.place(carry, self._several))

    def _keys(self, epoch: int) -> list[jax.Array]:
        """Return each seed's key for the start of an epoch; it differs from the keys of steps."""
        begins = [jax.random.fold_in(jax.random.key(seed), BEGINS) for seed in np.atleast_1d(self._seeds)]
        return [jax.random.fold_in(key, epoch) for key in begins]

    def batches(self, epoch: int, first: int) -> Iterator[Chunk]:
        """Yield the batches of an epoch from number `first` on, on the devices; several seeds are stacked."""
        steps = self._stream.steps_per_epoch()
        each = [self._chunks(itertools.islice(each.batches(epoch), first, None)) for each in self._streams]
        begins = range(first, steps, self.chunk)
        on_devices = self._devices.feed(_side_by_side(each) if self._several else each[0])
        for begin, batches in zip(begins, on_devices, strict=True):
            yield Chunk(batches, min(self.chunk, steps - begin))

    def _chunks(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        return batches if self._changing is None else _stacked(batches, self.chunk, self._changing)

    def compile(self, state: State) -> float:
        """Compile the program of a chunk for its one shape. Returns the seconds that took."""
        begun = time.monotonic()
        program = partial(_updates, training_step(self._stream.model, self._optimizer), self._changing)
        first = next(self.batches(0, 0))
        arguments = (state._replace(best=()), first.batches, self._seeds, np.int32(0), np.int32(first.updates))
        if self._several:
            own = _differing([next(self._chunks(each.batches(0))) for each in self._streams])
            together = partial(_together, program, jax.tree.map(lambda own: 0 if own else None, own))
            spread = (True, own, True, False, False)
            self._compiled = self._devices.compile_for(together, *arguments, spread=spread)
        else:
            self._compiled = self._devices.compile_for(program, *arguments)
        return time.monotonic() - begun

    def step(self, state: State, chunk: Chunk, number: int) -> tuple[State, dict[str, jax.Array]]:
        """Run the updates of a chunk for every seed; `number` is that of the first, from 0.

        Returns:
          The state, and figures [chunk] (of several seeds [seeds, chunk]), of which the first `chunk.updates` are real.
        """
        assert self._compiled is not None
        arguments = (chunk.batches, self._seeds, np.int32(number), np.int32(chunk.updates))
        after, figures = self._compiled(state._replace(best=()), *arguments)
        return after._replace(best=state.best), figures

    def each(self, tree: Any) -> list[Any]:
        """Split a tree of state or figures by seed."""
        if not self._several:
            return [tree]
        return [jax.tree.map(operator.itemgetter(number), tree) for number in range(self._number)]

    def choose(self, chosen: list[bool], these: Any, others: Any) -> Any:
        """Select for each seed the first arrays if it is chosen, otherwise the second."""
        if not self._several:
            return jax.tree.map(jnp.copy, these) if chosen[0] else others
        mask = np.array(chosen)
        together = jax.tree.map(
            lambda this, other: jnp.where(mask.reshape(-1, *[1] * (this.ndim - 1)), this, other), these, others
        )
        return self._devices.place(together, True)


def _updates(
    program: Program, changing: Any, axis: Axis, state: State, batches: Batch, seed: Any, number: Any, count: Any
) -> tuple[State, dict[str, jax.Array]]:
    """The first `count` updates of a chunk, and figures [chunk]. `changing`: see `_stacked`; None: there is but one."""
    if changing is None:
        state, figures = program(axis, state, batches, seed, number)
        return state, jax.tree.map(lambda figure: figure[None], figures)

    def update(step: Any, state: State) -> tuple[State, dict[str, jax.Array]]:
        batch = jax.tree.map(lambda leaf, changes: leaf[step] if changes else leaf, batches, changing)
        return program(axis, state, lax.optimization_barrier(batch), seed, number + step)

    def body(step: Any, so_far: tuple[State, dict[str, jax.Array]]) -> tuple[State, dict[str, jax.Array]]:
        state, figures = update(step, so_far[0])
        return state, jax.tree.map(lambda all_, figure: all_.at[step].set(figure), so_far[1], figures)

    chunk = next(len(leaf) for leaf, changes in zip(*map(jax.tree.leaves, (batches, changing)), strict=True) if changes)
    _, one = jax.eval_shape(update, 0, state)
    figures = jax.tree.map(lambda figure: jnp.zeros((chunk, *figure.shape), figure.dtype), one)
    return lax.fori_loop(0, count, body, (state, figures))


def _together(program: Program, batch_axes: Any, axis: Axis, *arguments: Any) -> tuple[State, dict[str, jax.Array]]:
    """Map the program of one seed over several, along the leading axis of (state, batches, seed)."""
    return jax.vmap(partial(program, axis), in_axes=(0, batch_axes, 0, None, None))(*arguments)


def _differing(batches: list[Batch]) -> Any:
    """For each array of a batch whether these batches have their own: not where all hold the very same array."""
    return jax.tree.map(lambda first, *others: any(other is not first for other in others), *batches)


def _stacked(batches: Iterator[Batch], size: int, changing: Any) -> Iterator[Batch]:
    """Chunks of batches: what changes from one to the next stacked, the last repeated where too few are left."""
    for first in batches:
        chunk = [first, *itertools.islice(batches, size - 1)]
        chunk += chunk[-1:] * (size - len(chunk))
        yield jax.tree.map(lambda changes, *leaves: np.stack(leaves) if changes else leaves[0], changing, *chunk)


def _side_by_side(each: Sequence[Iterator[Batch]]) -> Iterator[Batch]:
    """Batches of several seeds as one: an array that they share once, others stacked."""
    for batches in zip(*each, strict=True):
        yield jax.tree.map(
            lambda first, *others: first if all(other is first for other in others) else np.stack((first, *others)),
            *batches,
        )

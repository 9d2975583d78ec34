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

from drex_jax.models.axis import Axis
from drex_jax.models.protocol import Batch, Carry, Model, Params, Program
from drex_jax.parallel import Devices


class State(NamedTuple):
    """All arrays that continue a run; of several seeds with one more, leading axis."""

    params: Params
    optimizer: Any
    carry: Carry
    best: Params


def training_step(
    model: Model, optimizer: optax.GradientTransformation
) -> Callable[..., tuple[State, dict[str, jax.Array]]]:
    """One update as a program of one device: (axis, state, batch, seed, step) -> (state, figures to log)."""

    def train_step(
        axis: Axis, state: State, batch: Batch, seed: jax.Array, step: jax.Array
    ) -> tuple[State, dict[str, jax.Array]]:
        grad = jax.value_and_grad(model.loss, has_aux=True)
        key = jax.random.fold_in(jax.random.key(seed), step)
        (loss, (carry, sums)), gradient = grad(state.params, state.carry, batch, key, axis)
        loss, sums, gradient = jax.tree.map(axis.total, (loss, sums, gradient))
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        norm = optax.tree.norm(gradient)
        return State(params, optimizer_state, carry, state.best), {"loss": loss, "gradient_norm": norm, **sums}

    return train_step


class Trainer:
    """The training step of some seeds on some devices."""

    def __init__(self, model: Model, optimizer: optax.GradientTransformation, seeds: Sequence[int], devices: Devices):
        self._model, self._optimizer = model, optimizer
        self._number, self._several = len(seeds), len(seeds) > 1
        self._models = [model.with_seed(seed) for seed in seeds]
        self._devices = devices.spread_over(len(seeds))  # with constants of its own, which end with this training
        self._seeds = np.array(seeds, np.uint32) if self._several else np.uint32(seeds[0])
        self._start = jax.vmap(model.start) if self._several else model.start
        self._compiled: Callable[..., tuple[State, dict[str, jax.Array]]] | None = None

    def begin(self, params: list[Params]) -> State:
        """The state before the first step, from each seed's new parameters."""
        states = [State(each, self._optimizer.init(each), self._model.start(each), each) for each in params]
        together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states) if self._several else states[0]
        return self._devices.place(jax.tree.map(jnp.copy, together), self._several)

    def begin_epoch(self, state: State) -> State:
        """The state with everyone's first rows, under its parameters."""
        return state._replace(carry=self._devices.place(self._start(state.params), self._several))

    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        """The batches of an epoch from number `first` on, on the devices; of several seeds side by side."""
        each = [itertools.islice(model.batches(epoch), first, None) for model in self._models]
        return self._devices.feed(_side_by_side(each) if self._several else each[0])

    def compile(self, state: State) -> float:
        """Compiles the step for its one shape. Returns the seconds that took."""
        begun = time.monotonic()
        program = training_step(self._model, self._optimizer)
        arguments = (state, next(self.batches(0, 0)), self._seeds, np.int32(0))
        if self._several:
            own = _own([next(model.batches(0)) for model in self._models])
            together = partial(_together, program, jax.tree.map(lambda own: 0 if own else None, own))
            self._compiled = self._devices.compile_for(together, *arguments, spread=(True, own, True, False))
        else:
            self._compiled = self._devices.compile_for(program, *arguments)
        return time.monotonic() - begun

    def step(self, state: State, batch: Batch, number: int) -> tuple[State, dict[str, jax.Array]]:
        """One update of every seed; `number` counts from 0."""
        assert self._compiled is not None
        return self._compiled(state, batch, self._seeds, np.int32(number))

    def each(self, tree: Any) -> list[Any]:
        """A tree of state or figures, of each seed by itself."""
        if not self._several:
            return [tree]
        return [jax.tree.map(operator.itemgetter(number), tree) for number in range(self._number)]

    def choose(self, chosen: list[bool], these: Any, others: Any) -> Any:
        """For each seed these arrays where it is chosen, and otherwise the others."""
        if not self._several:
            return jax.tree.map(jnp.copy, these) if chosen[0] else others
        mask = np.array(chosen)
        together = jax.tree.map(
            lambda this, other: jnp.where(mask.reshape(-1, *[1] * (this.ndim - 1)), this, other), these, others
        )
        return self._devices.place(together, True)


def _together(program: Program, batch_axes: Any, axis: Axis, *arguments: Any) -> tuple[State, dict[str, jax.Array]]:
    """The program of one seed for several, along the leading axis of (state, batch, seed, step)."""
    return jax.vmap(partial(program, axis), in_axes=(0, batch_axes, 0, None))(*arguments)


def _own(batches: list[Batch]) -> Any:
    """For each array of a batch whether seeds have their own: not where all batches hold the very same array."""
    return jax.tree.map(lambda first, *others: any(other is not first for other in others), *batches)


def _side_by_side(each: Sequence[Iterator[Batch]]) -> Iterator[Batch]:
    """Batches of several seeds as one: an array that they share once, others stacked."""
    for batches in zip(*each, strict=True):
        yield jax.tree.map(
            lambda first, *others: first if all(other is first for other in others) else np.stack((first, *others)),
            *batches,
        )

"""The JAX rows: the recurrence over a stream by each implementation, forward and in training.

Parameters, loss and update are those of the peer: features projected by one learned matrix and a bias; learned start
states; the mean square of the states before every interaction plus that of the last states of whom a window touches;
one Adam update a window. Features are data and have no gradient. States of everyone are kept in one table; a window
gathers the rows that it touches and puts them back, and the gradient is cut between windows.

* `sequential`: one interaction at a time, on a sample.
* `autodiff`: the steps of our schedule under plain automatic differentiation, on a sample.
* `t_batch`: levels of the dependency graph cut into steps, by the kernel of `critical_path`.
* `critical_path`: our schedule and our kernel.

Letters: N interactions, n of a window, D state size, F feature size, U users, I items, r rows that a window touches.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from drex_jax.common.cache import no_cache
from drex_jax.models.drex import recurrence
from drex_jax.models.drex import window as window_lib
from drex_jax.models.drex.recurrence import CellParams, Implementation, Layout, RecurrenceOptions
from tools.benchmarks import levels, peer, timing
from tools.benchmarks.streams import Stream
from tools.benchmarks.table import Case, Row

SEQUENTIAL_SAMPLE = 5_000  # interactions, as the peer's
AUTODIFF_SAMPLE = 20_000  # its steps cost more the more rows the table has
WAYS = {
    "sequential": Implementation.SEQUENTIAL,
    "autodiff": Implementation.AUTODIFF,
    "t_batch": Implementation.BLOCKED,
    "critical_path": Implementation.BLOCKED,
}


class Params(NamedTuple):
    """Attributes:
    user, item: the cells' weights of the states.
    features: [F, 6D], as in `recurrence.Weights`.
    bias: [6D].
    start: [2, D], the state of a new user and of a new item.
    """

    user: CellParams
    item: CellParams
    features: jax.Array
    bias: jax.Array
    start: jax.Array


class Window(NamedTuple):
    """Attributes:
    rows: int32 [r] of the table of everyone, users then items; U + I where padded.
    fresh: bool [r], met for the first time.
    real: bool [n], no padding.
    features: float32 [n, F], zeros where padded.
    layout: where each interaction runs.
    """

    rows: Any
    fresh: Any
    real: Any
    features: Any
    layout: Layout


class Program:
    """An implementation over a stream, ready to be compiled.

    Args:
      name: of the implementation.
      stream: N interactions.
      case: sizes and features, the first N of which are the stream's.
      width: lanes a step.
      products: dtype of the products.
      count: windows of equal size.

    Attributes:
      windows: on the device, all of one shape.
      schedules: of each window.
    """

    def __init__(self, name: str, stream: Stream, case: Case, width: int, products: str, count: int) -> None:
        self.stream, self.case = stream, case
        self._options = RecurrenceOptions(WAYS[name], products)
        self._everyone = stream.num_users + stream.num_items
        begins = window_lib.window_begins(len(stream), count)
        spans = list(itertools.pairwise(begins.tolist()))
        cache = levels.cache if name == "t_batch" else no_cache
        packing = window_lib.Packing(width=1 if name == "sequential" else width, cache=cache)
        packed = window_lib.pack(stream.user, stream.item, spans, packing)
        self.schedules = packed.schedules
        self._sizes = packed.users, packed.items
        self._optimizer = optax.adam(peer.LEARNING_RATE)
        features = case.features()
        met = np.zeros(self._everyone, bool)
        self.windows: list[Window] = []
        for number, ((begin, end), (users, items)) in enumerate(zip(spans, packed.touched, strict=True)):
            padding = packed.users - len(users), packed.items - len(items)
            rows = np.concatenate(
                [
                    np.pad(users, (0, padding[0]), constant_values=self._everyone),
                    np.pad(items + stream.num_users, (0, padding[1]), constant_values=self._everyone),
                ]
            )
            fresh = np.append(~met, False)[rows]
            met[rows[rows < self._everyone]] = True
            real = np.arange(packed.size) < end - begin
            padded = np.pad(features[begin:end], ((0, packed.size - (end - begin)), (0, 0)))
            self.windows.append(
                jax.device_put(Window(rows.astype(np.int32), fresh, real, padded, packed.layout(number)))
            )

    def beginning(self) -> tuple[Params, Any, jax.Array]:
        """(parameters to start from, the state of their optimizer, the table of everyone [U + I, D])."""
        params = initial(self.case.state_size, self.case.feature_size)
        # The table's content does not matter: who is met for the first time gets the start state.
        return params, self._optimizer.init(params), jnp.zeros((self._everyone, self.case.state_size))

    def refine(self, params: Params, table: jax.Array, window: Window) -> tuple[jax.Array, jax.Array]:
        """(states of whom the window touches after it [r, D], states before each interaction [n, 2, D])."""
        size = table.shape[1]
        start = jnp.concatenate(
            [jnp.broadcast_to(start, (rows, size)) for start, rows in zip(params.start, self._sizes, strict=True)]
        )
        states = jnp.where(window.fresh[:, None], start, table.at[window.rows].get(mode="clip"))
        spare = jnp.zeros((2 * window.layout.lanes.shape[2], size), table.dtype)
        weights = recurrence.Weights(params.features, params.bias, recurrence.fused_weights(params.user, params.item))
        states = jnp.concatenate([states, spare])
        after, before = recurrence.refine(weights, states, window.features, window.layout, self._options)
        return after[: len(window.rows)], before

    def forward(self, params: Params, table: jax.Array, window: Window) -> tuple[jax.Array, jax.Array]:
        """(table of everyone after the window, states before each interaction [n, 2, D])."""
        after, before = self.refine(params, table, window)
        return table.at[window.rows].set(after, mode="drop"), before

    def loss(self, params: Params, table: jax.Array, window: Window) -> tuple[jax.Array, jax.Array]:
        """(loss of the window, states of whom it touches after it [r, D])."""
        after, before = self.refine(params, table, window)

        def mean_square(values: jax.Array, real: jax.Array) -> jax.Array:
            real = real.reshape(-1, *[1] * (values.ndim - 1))
            return jnp.sum(jnp.where(real, values, 0) ** 2) / (jnp.sum(real) * (values.size // len(values)))

        return mean_square(before, window.real) + mean_square(after, window.rows < self._everyone), after

    def update(self, params: Params, moments: Any, gradients: Params) -> tuple[Params, Any]:
        """Apply one Adam update."""
        updates, moments = self._optimizer.update(gradients, moments, params)
        return jax.tree.map(jnp.add, params, updates), moments

    def train(
        self, params: Params, moments: Any, table: jax.Array, window: Window
    ) -> tuple[Params, Any, jax.Array, jax.Array]:
        """One window: (parameters, optimizer's state, table of everyone, loss)."""
        (loss, after), gradients = jax.value_and_grad(self.loss, has_aux=True)(params, table, window)
        params, moments = self.update(params, moments, gradients)
        return params, moments, table.at[window.rows].set(after, mode="drop"), loss


class Compiled:
    """Both programs, compiled ahead of time. A call runs all windows and waits for the last.

    Attributes:
      seconds: that compiling both took.
      temp_bytes: temporary memory of the training program; None where the backend does not tell.
      loss: the sum of the windows' losses in the last call of `train`.
      params: as they are now.
      table: states of everyone [U + I, D], as they are now.
    """

    def __init__(self, program: Program) -> None:
        self._windows = program.windows
        self.params, self._moments, self.table = program.beginning()
        window = program.windows[0]
        begin = time.perf_counter()
        self._forward = jax.jit(program.forward, donate_argnums=1).lower(self.params, self.table, window).compile()
        self._train = (
            jax.jit(program.train, donate_argnums=(0, 1, 2))
            .lower(self.params, self._moments, self.table, window)
            .compile()
        )
        self.seconds = time.perf_counter() - begin
        memory = self._train.memory_analysis()
        self.temp_bytes = memory.temp_size_in_bytes if memory else None
        self.loss = float("nan")

    def forward(self) -> jax.Array:
        """Run all windows and return the states before the last window's interactions."""
        before = jnp.zeros(0)
        for window in self._windows:
            self.table, before = self._forward(self.params, self.table, window)
        return before.block_until_ready()

    def train(self) -> None:
        """Run one epoch, with one update for each window."""
        losses = []
        for window in self._windows:
            self.params, self._moments, self.table, loss = self._train(self.params, self._moments, self.table, window)
            losses.append(loss)
        self.loss = float(sum(jax.device_get(losses)))
        jax.block_until_ready(self.table)


def initial(state_size: int, feature_size: int) -> Params:
    """The peer's parameters to start from, its columns in the order of ours."""
    values = peer.initial(state_size, feature_size)

    def by_gate(columns: np.ndarray) -> jax.Array:
        """Reorder columns from (side, gate, D) to (gate, side, D)."""
        sides = columns.reshape(*columns.shape[:-1], 2, 3, state_size)
        return jnp.asarray(np.swapaxes(sides, -3, -2).reshape(columns.shape))

    user, item = (
        CellParams(jnp.asarray(values[f"{side}_own"]), jnp.asarray(values[f"{side}_partner"]))
        for side in ("user", "item")
    )
    return Params(user, item, by_gate(values["features"]), by_gate(values["bias"]), jnp.asarray(values["start"]))


def rows(
    case: Case, implementations: Sequence[str], widths: Sequence[int], dtypes: Sequence[str], count: int
) -> list[Row]:
    """A row for each implementation, dtype and width; `sequential` has width 1, `autodiff` takes the first alone.

    Args:
      case: what is run.
      implementations: names, as in the module's docstring.
      widths: lanes a step.
      dtypes: of the products.
      count: windows between which the gradient is cut; a sample is one window.
    """
    found = []
    for name in WAYS:
        if name in implementations:
            chosen = sorted(set(widths)) if name in ("t_batch", "critical_path") else widths[:1]
            for dtype, width in itertools.product(dtypes, chosen):
                begin = time.perf_counter()
                found.append(row(case, name, width, dtype, count))
                seconds = time.perf_counter() - begin
                print(f"{name}, width {found[-1].width}, {dtype}: measured in {seconds:.0f} s", file=sys.stderr)
    return found


def row(case: Case, name: str, width: int, dtype: str, count: int) -> Row:
    """Measure one row."""
    sample = {"sequential": SEQUENTIAL_SAMPLE, "autodiff": AUTODIFF_SAMPLE}.get(name)
    stream = case.stream.head(sample) if sample else case.stream
    program = Program(name, stream, case, width, dtype, 1 if sample else count)
    compiled = Compiled(program)
    steps = sum(packed.steps for packed in program.schedules)
    width = program.schedules[0].width
    return Row(
        implementation=name,
        framework="jax",
        dtype=dtype,
        exact=dtype == "float32",
        bptt_windows=len(program.windows),
        interactions=len(stream),
        width=width,
        depth=levels.depth(stream.user, stream.item),
        bound=sum(packed.bound for packed in program.schedules),
        steps=steps,
        fill=len(stream) / (steps * width),
        forward=timing.measure(compiled.forward, len(stream), case.repeats),
        train=timing.measure(compiled.train, len(stream), case.repeats),
        compile_seconds=compiled.seconds,
        temp_bytes=compiled.temp_bytes,
    )

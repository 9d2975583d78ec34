"""Measure the JAX implementations of the recurrence over a stream, forward and in training.

Parameters, loss and update are those of the PyTorch peer (tools/benchmarks/peer.py). Features are projected by one
learned matrix and a bias; start states are learned. The loss is the mean square of the states before every interaction,
plus the mean square of the last states of the users and items of the window. There is one Adam update a window.
Features are data and have no gradient. The states of all users and items are in one table. A window gathers its rows
from the table and scatters them back, and the gradient is cut between windows.

* `sequential`: one interaction at a time, on a sample.
* `autodiff`: the steps of our schedule under plain automatic differentiation, on a sample.
* `t_batch`: levels of the dependency graph cut into steps, run by the kernel of `critical_path`.
* `critical_path`: our schedule and our kernel.

Letters: N interactions, n interactions of a window, D state size, F feature size, U users, I items, r table rows that a
window gathers.
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

SEQUENTIAL_SAMPLE = 5_000  # interactions, as many as the peer's sample
AUTODIFF_SAMPLE = 20_000  # interactions; the cost of a step grows with the rows of the table
WAYS = {
    "sequential": Implementation.SEQUENTIAL,
    "autodiff": Implementation.AUTODIFF,
    "t_batch": Implementation.BLOCKED,
    "critical_path": Implementation.BLOCKED,
}


class Params(NamedTuple):
    """The parameters of the recurrence.

    Attributes:
      user, item: each cell's weights of the states.
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
    """A window of the stream, padded to the shape of all windows.

    Attributes:
      rows: int32 [r], rows of the table of all users and items, users first; U + I for padding.
      fresh: bool [r], True for rows that no earlier window has.
      real: bool [n], False for padding.
      features: float32 [n, F], zeros for padding.
      layout: the step and lane of each interaction.
    """

    rows: Any
    fresh: Any
    real: Any
    features: Any
    layout: Layout


class Program:
    """An implementation and a stream, ready to be compiled.

    Args:
      name: the implementation's name.
      stream: N interactions.
      case: sizes and features; the first N features belong to the stream.
      width: lanes a step.
      products: dtype of the matrix products.
      count: number of windows, all of equal size.

    Attributes:
      windows: the windows, on the device, all of one shape.
      schedules: the schedule of each window.
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
        """Return the initial parameters, the optimizer's state, and the table of all users and items [U + I, D]."""
        params = initial(self.case.state_size, self.case.feature_size)
        # The table's content does not matter: a row gets the start state when a window has it for the first time.
        return params, self._optimizer.init(params), jnp.zeros((self._everyone, self.case.state_size))

    def refine(self, params: Params, table: jax.Array, window: Window) -> tuple[jax.Array, jax.Array]:
        """Return the states of the window's rows after it [r, D], and the states before each interaction [n, 2, D]."""
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
        """Return the table after the window [U + I, D], and the states before each interaction [n, 2, D]."""
        after, before = self.refine(params, table, window)
        return table.at[window.rows].set(after, mode="drop"), before

    def loss(self, params: Params, table: jax.Array, window: Window) -> tuple[jax.Array, jax.Array]:
        """Return the loss of the window, and the states of its rows after it [r, D]."""
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
        """Train on one window. Return the parameters, the optimizer's state, the table [U + I, D] and the loss."""
        (loss, after), gradients = jax.value_and_grad(self.loss, has_aux=True)(params, table, window)
        params, moments = self.update(params, moments, gradients)
        return params, moments, table.at[window.rows].set(after, mode="drop"), loss


class Compiled:
    """The forward and the training program, compiled ahead of time. A call runs all windows and waits for the last.

    Attributes:
      seconds: compile time of both programs.
      temp_bytes: temporary memory of the training program; None where the backend does not report it.
      loss: the sum of the windows' losses in the last call of `train`.
      params: the current parameters.
      table: the current states of all users and items [U + I, D].
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
    """Return the peer's initial parameters, with the columns in our order."""
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
    """Return a row for each implementation, dtype and width.

    `sequential` always has width 1, and `autodiff` is measured with the first width only.

    Args:
      case: the input.
      implementations: names, as in the module's docstring.
      widths: lanes a step.
      dtypes: dtypes of the matrix products.
      count: number of windows, between which the gradient is cut; a sample is one window.
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

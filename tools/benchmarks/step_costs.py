"""Measure how long a training step of each width takes: the table of `drex_jax.models.drex.step_costs`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np

from drex_jax.models.drex.schedule import StepCosts
from tools.benchmarks import timing
from tools.benchmarks.kernels import Program
from tools.benchmarks.streams import Stream
from tools.benchmarks.table import Case

WIDTHS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 128, 256, 512, 1024)
STATE_SIZES = (16, 32, 64, 128)
USERS, ITEMS = 8192, 4096  # of the stream; more than the lanes of the widest step
LANES, MOST_STEPS, FEWEST_STEPS = 2**15, 2048, 32  # most lanes, most steps and fewest steps of a measurement
WIDE = 64  # above this width the search ends once an interaction takes more than HOPELESS times the best time
HOPELESS = 1.2
REPEATS = 3


def measure(state_size: int, widths: Sequence[int], report: Callable[[str], None] = print) -> StepCosts:
    """Measure a training step (forward and backward) of each width, with as many features as state entries.

    The stream has every user and every item in turn, so that no step waits for a chain and every step is full. The
    fastest of several calls counts.

    Args:
      state_size: D.
      widths: the widths of the table, ascending.
      report: gets a line with each cost.
    """
    costs: list[float] = []
    for width in widths:
        cost = _step_microseconds(state_size, width)
        report(f"state size {state_size}, width {width}: {cost:,.1f} us a step, {cost / width:,.2f} an interaction")
        costs.append(cost)
        best = min(cost / width for width, cost in zip(widths, costs, strict=False))
        if width > WIDE and cost / width > HOPELESS * best:
            break
    return StepCosts(tuple(widths[: len(costs)]), tuple(costs))


def stream(width: int) -> Stream:
    """Return enough full steps of `width`: users and items in turn, no id twice within any 4,096 interactions."""
    steps = min(max(LANES // width, FEWEST_STEPS), MOST_STEPS)
    index = np.arange(steps * width)
    return Stream("in turn", (index % USERS).astype(np.int32), (index % ITEMS).astype(np.int32), USERS, ITEMS)


def _step_microseconds(state_size: int, width: int) -> float:
    turns = stream(width)
    case = Case(turns, state_size, state_size, REPEATS)
    program = Program("critical_path", turns, case, width, "float32", 1)
    params, _, table = program.beginning()
    window = program.windows[0]
    gradient = jax.jit(jax.grad(lambda *args: program.loss(*args)[0])).lower(params, table, window).compile()
    rate = timing.measure(lambda: jax.block_until_ready(gradient(params, table, window)), 1, REPEATS)
    return 1e6 / rate.highest / program.schedules[0].steps

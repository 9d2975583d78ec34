"""Measure the parts of a training step, as differences between programs that each lack one more part.

The fastest of several calls counts, because differences between noisy times are meaningless.

* `projection`: the additional time of a forward pass with F features, compared to one feature.
* `forward scan`: a forward pass with one feature.
* `backward scan`: the loss and its gradient with respect to the start states, less a forward pass: the reverse scan,
  the recomputed gates, the loss.
* `weight gradients`: the additional time of the gradient with respect to all parameters.
* `update`: the optimizer alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tools.benchmarks import timing
from tools.benchmarks.kernels import Program
from tools.benchmarks.table import Case


def measure(case: Case, width: int, products: str, count: int) -> dict[str, float]:
    """Measure the seconds of each part for all windows of `critical_path`, in the order in which they run.

    Args:
      case: the input.
      width: lanes a step.
      products: dtype of the products.
      count: number of windows, between which the gradient is cut.
    """
    program = Program("critical_path", case.stream, case, width, products, count)
    bare = Program("critical_path", case.stream, dataclasses.replace(case, feature_size=1), width, products, count)
    params, moments, table = program.beginning()
    bare_params, _, bare_table = bare.beginning()

    def by_start(params: Any, table: jax.Array, window: Any) -> Any:
        def loss(start: jax.Array) -> jax.Array:
            return program.loss(params._replace(start=start), table, window)[0]

        return jax.grad(loss)(params.start)

    def by_all(params: Any, table: jax.Array, window: Any) -> Any:
        return jax.grad(lambda params: program.loss(params, table, window)[0])(params)

    def seconds(function: Callable[..., Any], params: Any, table: jax.Array, windows: list[Any]) -> float:
        compiled = jax.jit(function).lower(params, table, windows[0]).compile()

        def call() -> None:
            for window in windows:
                jax.block_until_ready(compiled(params, table, window))

        return 1 / timing.measure(call, 1, case.repeats).highest

    forward = seconds(program.refine, params, table, program.windows)
    scan = seconds(bare.refine, bare_params, bare_table, bare.windows)
    states = seconds(by_start, params, table, program.windows)
    everything = seconds(by_all, params, table, program.windows)
    update = jax.jit(program.update).lower(params, moments, params).compile()
    updating = timing.measure(lambda: jax.block_until_ready(update(params, moments, params)), 1, case.repeats)
    return {
        "projection": forward - scan,
        "forward scan": scan,
        "backward scan": states - forward,
        "weight gradients": everything - states,
        "update": len(program.windows) / updating.highest,
    }


def text(parts: dict[str, float], interactions: int) -> list[str]:
    """Format one line for each part: microseconds an interaction, and its share of the total."""
    whole = np.sum(list(parts.values()))
    return [
        f"{name:<17}{1e6 * seconds / interactions:>7.2f} us an interaction {seconds / whole:>6.1%}"
        for name, seconds in parts.items()
    ]

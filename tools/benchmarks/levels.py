"""Schedule by t-batches (Kumar et al., KDD 2019), the usual baseline: each level of the dependency graph is a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from drex_jax.models.drex.schedule import Schedule, levels


def depth(user: np.ndarray, item: np.ndarray) -> int:
    """Return the length of the longest chain of dependent interactions."""
    return int(levels(user, item).max(initial=-1)) + 1


def schedule(user: np.ndarray, item: np.ndarray, width: int) -> Schedule:
    """Schedule level after level, each cut into steps of `width` in time order; its last step may have empty lanes.

    The `bound` of the result is the simple one, `max(depth, ceil(N / width))`.
    """
    level = levels(user, item)
    sizes = np.bincount(level)
    order = np.argsort(level, kind="stable")
    rank = np.empty(len(level), np.int64)
    rank[order] = np.arange(len(level)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    steps = -(-sizes // width)
    step = (np.cumsum(steps) - steps)[level] + rank // width
    bound = max(len(sizes), -(-len(level) // width))
    return Schedule(step.astype(np.int32), (rank % width).astype(np.int32), width, int(steps.sum()), len(sizes), bound)


def cache(
    kind: str,
    inputs: Mapping[str, np.ndarray],
    options: Mapping[str, Any],
    version: int,
    make: Callable[[], Mapping[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """Return t-batches when a schedule is requested, else make the value: a cache for `window.Packing.remember`."""
    return (
        schedule(inputs["user"], inputs["item"], options["width"]).to_arrays() if kind == "schedule" else dict(make())
    )

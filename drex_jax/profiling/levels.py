"""T-batches (Kumar et al., KDD 2019): each level of the dependency graph as a batch of its own, the usual baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numba
import numpy as np

from drex_jax.models.drex.schedule import Schedule


def levels(user: np.ndarray, item: np.ndarray) -> np.ndarray:
    """int32 [N]: how long a chain of interactions must come before each; ids are below some small multiple of N."""
    if not len(user):
        return np.zeros(0, np.int32)
    return _levels(np.ascontiguousarray(user, np.int32), np.ascontiguousarray(item, np.int32))


def depth(user: np.ndarray, item: np.ndarray) -> int:
    """The length of the longest chain of dependent interactions."""
    return int(levels(user, item).max(initial=-1)) + 1


def schedule(user: np.ndarray, item: np.ndarray, width: int) -> Schedule:
    """Level after level, each cut into steps of `width` in time order; its last step may have empty lanes.

    Its `bound` is the simple one, `max(depth, ceil(N / width))`.
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


def remember(
    kind: str,
    inputs: Mapping[str, np.ndarray],
    options: Mapping[str, Any],
    version: int,
    make: Callable[[], Mapping[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """For `window.Packing.remember`: t-batches where a schedule is asked for."""
    return (
        schedule(inputs["user"], inputs["item"], options["width"]).to_arrays() if kind == "schedule" else dict(make())
    )


@numba.njit(cache=True)
def _levels(user, item):  # pragma: no cover - compiled
    level = np.empty(len(user), np.int32)
    user_next = np.zeros(user.max() + 1, np.int32)
    item_next = np.zeros(item.max() + 1, np.int32)
    for k in range(len(user)):
        level[k] = max(user_next[user[k]], item_next[item[k]])
        user_next[user[k]] = item_next[item[k]] = level[k] + 1
    return level

"""When each interaction may be computed: a stream packed into steps of at most `width` independent interactions.

Interaction k needs the states that the previous interaction of its user and the previous one of its item left behind,
and nothing else. The stream is therefore a graph in which every node has at most two parents and two children, and any
order that respects it gives every interaction the same two states as the strict time order. Critical-path list
scheduling (our choice; the paper does not say how it batches) takes interactions by longest remaining chain first and
puts each into the earliest step after its parents that has room.

Letters: N interactions, S steps, B width.
"""

from __future__ import annotations

import dataclasses

import numba
import numpy as np

from drex_jax.order import neighbours


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Where each interaction runs.

    Attributes:
      step: int32 [N], the step of each interaction.
      lane: int32 [N], its place within the step; (step, lane) is unique.
      width: most interactions a step.
      steps: number of steps.
      depth: length of the longest chain of dependent interactions; no schedule has fewer steps.
      bound: a lower bound on the steps of any schedule of this width (see `lower_bound`).
    """

    step: np.ndarray
    lane: np.ndarray
    width: int
    steps: int
    depth: int
    bound: int

    @property
    def fill(self) -> float:
        """The share of lanes in use."""
        return len(self.step) / max(self.steps * self.width, 1)

    def slots(self) -> np.ndarray:
        """int32 [N]: position of each interaction in the flattened [S * B] lanes."""
        return self.step * np.int32(self.width) + self.lane

    def events(self) -> np.ndarray:
        """int32 [S, B]: the interaction in each lane; N in an empty one."""
        lanes = np.full(self.steps * self.width, len(self.step), np.int32)
        lanes[self.slots()] = np.arange(len(self.step), dtype=np.int32)
        return lanes.reshape(self.steps, self.width)


@numba.njit(cache=True)
def _levels_and_heights(user_previous, item_previous, user_next, item_next):  # pragma: no cover - compiled
    n = len(user_previous)
    level = np.zeros(n, np.int32)
    height = np.zeros(n, np.int32)
    for k in range(n):
        if user_previous[k] >= 0:
            level[k] = level[user_previous[k]] + 1
        if item_previous[k] >= 0:
            level[k] = max(level[k], level[item_previous[k]] + 1)
    for k in range(n - 1, -1, -1):
        if user_next[k] < n:
            height[k] = height[user_next[k]] + 1
        if item_next[k] < n:
            height[k] = max(height[k], height[item_next[k]] + 1)
    return level, height


@numba.njit(cache=True)
def _place(order, user_previous, item_previous, width):  # pragma: no cover - compiled
    """Each of `order` into the earliest step after its parents with room; full steps are skipped by a union-find."""
    n = len(order)
    step = np.empty(n, np.int32)
    lane = np.empty(n, np.int32)
    used = np.zeros(n + 1, np.int32)
    skip = np.arange(n + 1).astype(np.int32)  # skip[s]: a step >= s, followed to the first with room
    for index in range(n):
        k = order[index]
        earliest = 0
        if user_previous[k] >= 0:
            earliest = step[user_previous[k]] + 1
        if item_previous[k] >= 0:
            earliest = max(earliest, step[item_previous[k]] + 1)
        while skip[earliest] != earliest:
            skip[earliest] = skip[skip[earliest]]
            earliest = skip[earliest]
        step[k] = earliest
        lane[k] = used[earliest]
        used[earliest] += 1
        if used[earliest] == width:
            skip[earliest] = earliest + 1
    return step, lane


def lower_bound(level: np.ndarray, width: int) -> int:
    """No schedule has fewer steps: what is at level l or beyond cannot start before step l, and takes its own room.

    Args:
      level: int [N], number of interactions that must come before each, along its longest chain (or, from the other
        end, after each).
      width: interactions a step.
    """
    if not len(level):
        return 0
    at_or_beyond = np.cumsum(np.bincount(level)[::-1])[::-1]
    return int(np.max(np.arange(len(at_or_beyond)) - (-at_or_beyond // width)))


def choose_width(num_interactions: int, depth: int, overhead: float = 16.0, most: int = 4096) -> int:
    """The power of two that makes steps x cost of a step smallest.

    A step costs about `overhead` + width (in interactions: the fixed cost of a step is worth that many of them), and
    there are about `max(depth, N / width)` steps.
    """
    widths = 2 ** np.arange(int(np.log2(most)) + 1)
    steps = np.maximum(depth, -(-num_interactions // widths))
    return int(widths[np.argmin(steps * (overhead + widths))])


def depth(user: np.ndarray, item: np.ndarray) -> int:
    """Length of the longest chain of dependent interactions; 0 of an empty stream. Arguments as in `schedule`."""
    if not len(user):
        return 0
    user_links, item_links = (neighbours(ids, int(ids.max()) + 1) for ids in (user, item))
    level, _ = _levels_and_heights(user_links[0], item_links[0], user_links[1], item_links[1])
    return int(level.max()) + 1


def schedule(user: np.ndarray, item: np.ndarray, width: int = 0) -> Schedule:
    """Packs a stream into steps.

    Args:
      user: int [N], non-negative ids in time order.
      item: int [N], likewise.
      width: most interactions a step; 0 chooses one from N and the depth (`choose_width`).

    Returns:
      A schedule in which no step holds two interactions of one user or of one item, and every interaction stands in a
      later step than those before it of the same user or item.

    Raises:
      ValueError: width is negative or the columns differ in length.
    """
    if width < 0:
        raise ValueError(f"width must be at least 1 (or 0 to choose one), not {width}")
    if len(user) != len(item):
        raise ValueError(f"user and item must have one length, not {len(user)} and {len(item)}")
    if not len(user):
        return Schedule(np.zeros(0, np.int32), np.zeros(0, np.int32), max(width, 1), 0, 0, 0)
    user_previous, user_next = neighbours(user, int(user.max()) + 1)
    item_previous, item_next = neighbours(item, int(item.max()) + 1)
    level, height = _levels_and_heights(user_previous, item_previous, user_next, item_next)
    depth = int(level.max()) + 1
    width = width or choose_width(len(user), depth)
    order = np.argsort(-height, kind="stable").astype(np.int32)
    step, lane = _place(order, user_previous, item_previous, width)
    bound = max(lower_bound(level, width), lower_bound(height, width))
    return Schedule(step, lane, width, int(step.max()) + 1, depth, bound)

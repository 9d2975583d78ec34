"""The schedule of a stream: interactions packed into steps of at most `width` independent ones.

Interaction k depends only on the states after the previous interaction of its user and the previous one of its item.
The stream is therefore a graph in which every node has at most two parents and two children. Any topological order
gives every interaction the same two states as the time order. Critical-path list scheduling (T. C. Hu, 1961; our
choice, the paper does not say how it batches) takes interactions with the longest remaining chain first, and puts each
into the earliest step after its parents that has room.

* The *level* of an interaction is the length of the longest chain that must come before it; its *height* is the length
  of the longest chain that must come after it. Along every chain levels rise and heights fall. So falling height is a
  topological order of the stream, and falling level is a topological order of the reversed stream.
* Every algorithm is one pass over the interactions with one number for each user and each item, because an interaction
  depends only on the last interaction of its user and of its item. Time and memory are O(N).
* A short stream whose first schedule misses the lower bound is scheduled again by *heads* and *tails*: levels and
  heights that also count how many ancestors and descendants have to fit into the width (`_heads`). They sharpen the
  bound and are better priorities; at width 2 schedule and bound then meet (Garey and Johnson, 1976).

Letters: N interactions, S steps, B width.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable, Mapping

import numba
import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.common.streams import previous_and_next

_Packed = tuple[np.ndarray, np.ndarray, int, int]  # step, lane, steps, lower bound on the steps
VERSION = 1  # raise it when `build_schedule` returns other schedules: cached ones are then built again
MOST_LANES = 2**31 - 1  # the largest int32 index
SHARPENED = 8192  # longest stream that is scheduled again, which takes O(N^2) time, 0.1 s at this length


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The step and lane in which each interaction runs.

    Attributes:
      step: int32 [N], the step of each interaction.
      lane: int32 [N], its position within the step; (step, lane) is unique.
      width: the largest number of interactions of a step.
      steps: number of steps; steps x width fits into an int32.
      depth: length of the longest chain of dependent interactions; no schedule has fewer steps.
      bound: a lower bound on the steps of any schedule of this width, at least `max(depth, ceil(N / width))`.
    """

    step: np.ndarray
    lane: np.ndarray
    width: int
    steps: int
    depth: int
    bound: int

    @property
    def fill(self) -> float:
        """The share of lanes that are in use."""
        return len(self.step) / max(self.steps * self.width, 1)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the schedule as arrays, for a cache on disk."""
        return {
            "step": self.step,
            "lane": self.lane,
            "facts": np.array([self.width, self.steps, self.depth, self.bound], np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Schedule:
        """Return the schedule from the result of `to_arrays`."""
        return cls(arrays["step"], arrays["lane"], *(int(fact) for fact in arrays["facts"]))

    def slots(self) -> np.ndarray:
        """Return the position of each interaction in the flattened [S * B] lanes, int32 [N]."""
        return self.step * np.int32(self.width) + self.lane

    def events(self) -> np.ndarray:
        """Return the interaction in each lane, int32 [S, B]; N in an empty lane.

        >>> build_schedule(np.array([0, 1, 0]), np.array([0, 1, 1]), width=2).events().tolist()
        [[0, 1], [2, 3]]
        """
        lanes = np.full(self.steps * self.width, len(self.step), np.int32)
        lanes[self.slots()] = np.arange(len(self.step), dtype=np.int32)
        return lanes.reshape(self.steps, self.width)


@dataclasses.dataclass(frozen=True)
class StepCosts:
    """The time of one training step on a kind of device, by its width.

    Attributes:
      widths: numbers of interactions of a step, ascending.
      microseconds: the time of one training step of each width.

    Raises:
      UserError: there is no width, widths do not ascend from at least 1, or a time is missing or not positive.
    """

    widths: tuple[int, ...]
    microseconds: tuple[float, ...]

    def __post_init__(self):
        if not self.widths or len(self.widths) != len(self.microseconds):
            raise UserError(
                f"a table of step costs needs as many times as widths, at least one of each, "
                f"not {len(self.microseconds)} and {len(self.widths)}"
            )
        if not all(below < width for below, width in zip((0, *self.widths), self.widths, strict=False)):
            raise UserError(f"the widths of a table of step costs ascend from at least 1, unlike {self.widths}")
        if not all(0 < time < np.inf for time in self.microseconds):
            raise UserError(f"the times of a table of step costs are positive and finite, unlike {self.microseconds}")


def build_schedule(user: np.ndarray, item: np.ndarray, width: int) -> Schedule:
    """Pack a stream into steps of independent interactions.

    >>> schedule = build_schedule(np.array([0, 1, 0]), np.array([0, 1, 1]), width=2)
    >>> schedule.step.tolist(), schedule.steps, schedule.depth, schedule.fill
    ([0, 0, 1], 2, 2, 0.75)

    Args:
      user: int [N], non-negative user ids in time order.
      item: int [N], non-negative item ids in time order.
      width: the largest number of interactions of a step.

    Returns:
      A schedule in which no step has two interactions of the same user or item, and every interaction runs in a later
      step than earlier interactions of its user or item. Equal arguments give equal schedules.

    Raises:
      UserError: width is below 1, or steps x width does not fit into an int32.
      ValueError: the columns differ in length, are not whole numbers or hold a negative id.
      TypeError: width is not a whole number.
    """
    width = operator.index(width)
    if width < 1:
        raise UserError(f"the width of a schedule is {width}: at least 1 is needed")
    user, item, users, items = _columns(user, item)
    if not len(user):
        return Schedule(np.zeros(0, np.int32), np.zeros(0, np.int32), width, 0, 0, 0)
    _, level_counts = _levels(user, item, users, items)
    height, height_counts = _levels(*_reversed(user, item), users, items)
    height = np.ascontiguousarray(height[::-1])
    bound = max(_bound(level_counts, width), _bound(height_counts, width))
    _refuse_too_many_lanes(bound, width)
    order = _by_falling(height, height_counts)
    del height
    step, lane = _place(order, user, item, users, items, width)
    steps = int(step.max()) + 1
    if steps > bound and len(user) <= SHARPENED:
        step, lane, steps, bound = _again(user, item, users, items, width, (step, lane, steps, bound))
    _refuse_too_many_lanes(steps, width)
    return Schedule(step, lane, width, steps, len(level_counts), bound)


def cheapest_width(streams: Iterable[tuple[np.ndarray, np.ndarray]], costs: StepCosts) -> int:
    """Return the width of the table at which training on all streams (such as the windows of a plan) is fastest.

    The number of steps is estimated by its lower bound, which schedules reach or nearly reach; no schedule is built.

    >>> costs = StepCosts(widths=(1, 2), microseconds=(10.0, 11.0))
    >>> cheapest_width([(np.array([0, 1, 0]), np.array([0, 1, 1]))], costs)
    2

    Args:
      streams: (user, item) of each stream, as for `build_schedule`.
      costs: the time of a step of each width.

    Returns:
      The fastest width; of equally fast ones the narrowest. A width at which a stream needs more lanes than an int32
      can count is returned only if this holds for all widths; it is the narrowest then.

    Raises:
      ValueError: as for `build_schedule`.
    """
    time = np.zeros(len(costs.widths))
    for user, item in streams:
        user, item, users, items = _columns(user, item)
        _, level_counts = _levels(user, item, users, items)
        _, height_counts = _levels(*_reversed(user, item), users, items)
        for column, (width, cost) in enumerate(zip(costs.widths, costs.microseconds, strict=True)):
            steps = max(_bound(level_counts, width), _bound(height_counts, width))
            time[column] += steps * cost if steps * width <= MOST_LANES else np.inf
    return costs.widths[int(np.argmin(time))]


def levels(user: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Return the length of the longest chain that must come before each interaction, int32 [N].

    Arguments and errors are those of `build_schedule`.

    >>> levels(np.array([0, 1, 0]), np.array([0, 1, 1])).tolist()
    [0, 0, 1]
    """
    if not len(user):
        return np.zeros(0, np.int32)
    return _levels(*_columns(user, item))[0]


def _columns(user: np.ndarray, item: np.ndarray) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Check the columns. Return (user, item) as contiguous int32 [N], and the number of ids of each, which is O(N)."""
    if len(user) != len(item):
        raise ValueError(f"user and item must have one length, not {len(user)} and {len(item)}")
    if len(user) >= MOST_LANES:
        raise UserError(f"a schedule holds at most {MOST_LANES - 1:,} interactions, not {len(user):,}: use windows")
    columns, sizes = [], []
    for side, ids in (("user", np.asarray(user)), ("item", np.asarray(item))):
        high = -1
        if ids.size:
            if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
                raise ValueError(f"{side} ids must be one column of whole numbers, not {ids.dtype} {list(ids.shape)}")
            if ids.min() < 0:
                raise ValueError(f"{side} ids must not be negative: {ids.min()} at position {ids.argmin()}")
            high = int(ids.max())
        if high >= min(
            4 * len(ids), MOST_LANES
        ):  # a window of a large data set: renumber the ids, so that tables stay small
            distinct, ids = np.unique(ids, return_inverse=True)
            high = len(distinct) - 1
        columns.append(np.ascontiguousarray(ids, np.int32))
        sizes.append(high + 1)
    return columns[0], columns[1], sizes[0], sizes[1]


def _reversed(user: np.ndarray, item: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the reversed stream: its levels are the heights of the stream, last interaction first."""
    return np.ascontiguousarray(user[::-1]), np.ascontiguousarray(item[::-1])


def _refuse_too_many_lanes(steps: int, width: int) -> None:
    if steps * width > MOST_LANES:
        raise UserError(
            f"{steps:,} steps of width {width:,} are {steps * width:,} lanes, more than an int32 counts: "
            "take a narrower width or more windows"
        )


@numba.njit(cache=True)
def _levels(  # pragma: no cover - compiled
    user: np.ndarray, item: np.ndarray, users: int, items: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the level of each interaction, int32 [N], and the number of interactions at each level, int32 [depth]."""
    n = len(user)
    level = np.empty(n, np.int32)
    counts = np.zeros(n, np.int32)
    user_next = np.zeros(users, np.int32)  # the lowest level that each user allows for its next interaction
    item_next = np.zeros(items, np.int32)
    depth = 0
    for k in range(n):
        here = max(user_next[user[k]], item_next[item[k]])
        user_next[user[k]] = item_next[item[k]] = here + 1
        level[k] = here
        counts[here] += 1
        depth = max(depth, here + 1)
    return level, counts[:depth].copy()


def _bound(counts: np.ndarray, width: int) -> int:
    """Return a lower bound on the steps from the number of interactions at each level (or height, head or tail).

    Interactions at level l or above cannot start before step l. So every schedule has at least
    `l + ceil(#{interactions at level >= l} / width)` steps. l = 0 gives `ceil(N / width)`, the last l gives the depth.
    """
    at_or_beyond = np.cumsum(counts[::-1], dtype=np.int64)[::-1]
    return int(np.max(np.arange(len(counts)) - (-at_or_beyond // width), initial=0))


@numba.njit(cache=True)
def _by_falling(key: np.ndarray, counts: np.ndarray) -> np.ndarray:  # pragma: no cover - compiled
    """Sort stably by falling key (counting sort); `counts` [K]: how often each value occurs. Returns int32 [N]."""
    begin = np.zeros(len(counts), np.int32)
    for value in range(len(counts) - 2, -1, -1):
        begin[value] = begin[value + 1] + counts[value + 1]
    order = np.empty(len(key), np.int32)
    for k in range(len(key)):
        order[begin[key[k]]] = k
        begin[key[k]] += 1
    return order


@numba.njit(cache=True)
def _place(  # pragma: no cover - compiled
    order: np.ndarray, user: np.ndarray, item: np.ndarray, users: int, items: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Put each interaction into the earliest step with room after its parents. Returns (step, lane), int32 [N] each.

    `order` must be topological: then the last interactions of the user and of the item are the parents. For a
    topological order of the reversed stream they are the children, and steps count from the end. Full steps are skipped
    with a union-find.
    """
    n = len(order)
    step = np.empty(n, np.int32)
    lane = np.empty(n, np.int32)
    used = np.zeros(n + 1, np.int32)
    skip = np.zeros(n + 1, np.int32)  # for a full step, a later step to try; 0 while there is room
    user_next = np.zeros(users, np.int32)  # the first step after each user's last interaction
    item_next = np.zeros(items, np.int32)
    for index in range(n):
        k = order[index]
        here = max(user_next[user[k]], item_next[item[k]])
        while skip[here]:
            if skip[skip[here]]:
                skip[here] = skip[skip[here]]
            here = skip[here]
        step[k] = here
        lane[k] = used[here]
        used[here] += 1
        if used[here] == width:
            skip[here] = here + 1
        user_next[user[k]] = item_next[item[k]] = here + 1
    return step, lane


def _again(user: np.ndarray, item: np.ndarray, users: int, items: int, width: int, schedule: _Packed) -> _Packed:
    """Improve `schedule` (step, lane, steps, bound): a sharper bound and, if possible, a shorter schedule.

    Interactions are taken by falling tail, and backwards by falling head; both orders are topological.
    """
    head = _heads(previous_and_next(user, users)[0], previous_and_next(item, items)[0], width)
    back_user, back_item = _reversed(user, item)
    tail = _heads(previous_and_next(back_user, users)[0], previous_and_next(back_item, items)[0], width)
    tail = np.ascontiguousarray(tail[::-1])
    step, lane, steps, bound = schedule
    bound = max(bound, _joint_bound(head, tail, width))
    for key, from_end in ((tail, False), (head, True)):
        if steps > bound:
            order = _by_falling(key, np.bincount(key))
            new_step, new_lane = _place(order, user, item, users, items, width)
            if new_step.max() + 1 < steps:
                steps = int(new_step.max()) + 1
                step, lane = (np.int32(steps - 1) - new_step if from_end else new_step), new_lane
    return step, lane, steps, bound


@numba.njit(cache=True)
def _heads(  # pragma: no cover - compiled
    user_previous: np.ndarray, item_previous: np.ndarray, width: int
) -> np.ndarray:
    """Return a step before which no schedule of this width can run each interaction, int32 [N]; at least its level.

    By induction in time order: the ancestors of v with heads of at least a run at step a or later, before v, and at
    most `width` of them in a step. So v cannot run before step `a + ceil(#{such ancestors} / width)`, for every a.
    The head of an interaction is above the heads of its ancestors.
    """
    n = len(user_previous)
    head = np.zeros(n, np.int32)
    ancestor_of = np.full(n, -1, np.int32)  # the last v that each interaction is an ancestor of
    counts = np.zeros(n + 1, np.int32)  # number of v's ancestors by head
    for v in range(n):
        top = -1
        for parent in (user_previous[v], item_previous[v]):
            if parent >= 0:
                ancestor_of[parent] = v
                top = max(top, head[parent])
        low = top
        for k in range(v - 1, -1, -1):
            if ancestor_of[k] == v:
                counts[head[k]] += 1
                low = min(low, head[k])
                if user_previous[k] >= 0:
                    ancestor_of[user_previous[k]] = v
                if item_previous[k] >= 0:
                    ancestor_of[item_previous[k]] = v
        at_or_beyond = 0
        for a in range(top, low - 1, -1):
            at_or_beyond += counts[a]
            counts[a] = 0
            head[v] = max(head[v], a + (at_or_beyond + width - 1) // width)
    return head


@numba.njit(cache=True)
def _joint_bound(head: np.ndarray, tail: np.ndarray, width: int) -> int:  # pragma: no cover - compiled
    """Return a lower bound on the steps from heads [N] and tails [N], in O(N + (largest head) x (largest tail)).

    Interactions with head >= a and tail >= b run neither before step a nor in the last b steps. The steps between must
    hold them, so there are at least `a + ceil(#{such interactions} / width) + b` steps.
    """
    order = np.argsort(-head)
    counts = np.zeros(tail.max() + 1, np.int32)  # number of interactions with head >= a, by tail
    bound = 0
    index = 0
    for a in range(head.max(), -1, -1):
        while index < len(order) and head[order[index]] == a:
            counts[tail[order[index]]] += 1
            index += 1
        at_or_beyond = 0
        for b in range(len(counts) - 1, -1, -1):
            at_or_beyond += counts[b]
            if at_or_beyond:
                bound = max(bound, a + (at_or_beyond + width - 1) // width + b)
    return bound

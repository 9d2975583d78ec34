"""When each interaction may be computed: a stream packed into steps of at most `width` independent interactions.

Interaction k needs the states that the previous interaction of its user and the previous one of its item left behind,
and nothing else. The stream is therefore a graph in which every node has at most two parents and two children, and any
order that respects it gives every interaction the same two states as the strict time order. Critical-path list
scheduling (T. C. Hu, 1961; our choice, the paper does not say how it batches) takes interactions by longest remaining
chain first and puts each into the earliest step after its parents that has room.

* The *level* of an interaction is the length of the longest chain that must come before it, its *height* that of the
  longest chain that must come after it. Along every chain levels rise and heights fall, so taking interactions by
  falling height is a topological order, and taking them by falling level is one of the stream run backwards.
* Everything is a pass over the interactions with one number for each user and each item, because all that an
  interaction asks of the past is what its user's and its item's last interaction came to. Time and memory are O(N).
* A short stream whose first schedule misses the lower bound is looked at again with *heads* and *tails*: levels and
  heights that also count how many ancestors and descendants have to fit into the width (`_heads`). They sharpen the
  bound and are better priorities; at width 2 they make schedule and bound meet (Garey and Johnson, 1976).

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

VERSION = 1  # of what `schedule` returns for a stream and a width: a change makes kept schedules anew
MOST_LANES = 2**31 - 1  # what an int32 index reaches
SHARPENED = 8192  # longest stream looked at again: that costs O(N^2) time, 0.1 s here


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Where each interaction runs.

    Attributes:
      step: int32 [N], the step of each interaction.
      lane: int32 [N], its place within the step; (step, lane) is unique.
      width: most interactions a step.
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
        """The share of lanes in use."""
        return len(self.step) / max(self.steps * self.width, 1)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The same as arrays, to be kept on disk."""
        return {
            "step": self.step,
            "lane": self.lane,
            "facts": np.array([self.width, self.steps, self.depth, self.bound], np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Schedule:
        """From what `to_arrays` gave."""
        return cls(arrays["step"], arrays["lane"], *(int(fact) for fact in arrays["facts"]))

    def slots(self) -> np.ndarray:
        """int32 [N]: position of each interaction in the flattened [S * B] lanes."""
        return self.step * np.int32(self.width) + self.lane

    def events(self) -> np.ndarray:
        """int32 [S, B]: the interaction in each lane; N in an empty one."""
        lanes = np.full(self.steps * self.width, len(self.step), np.int32)
        lanes[self.slots()] = np.arange(len(self.step), dtype=np.int32)
        return lanes.reshape(self.steps, self.width)


@dataclasses.dataclass(frozen=True)
class StepCosts:
    """What one training step costs on some kind of device, by its width.

    Attributes:
      widths: interactions a step, ascending.
      microseconds: the time of one training step of each width.

    Raises:
      UserError: no width, widths that do not ascend from at least 1, or a time that is missing or not positive.
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
    """Packs a stream into steps.

    Args:
      user: int [N], non-negative ids in time order.
      item: int [N], likewise.
      width: most interactions a step.

    Returns:
      A schedule in which no step holds two interactions of one user or of one item, and every interaction stands in a
      later step than those before it of the same user or item. Equal arguments give equal schedules.

    Raises:
      UserError: width is below 1, or steps x width is more than an int32 counts.
      ValueError: the columns differ in length, are not whole numbers or hold a negative id.
      TypeError: width is no whole number.
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
    """The width of the table at which training on all of `streams` (the windows of a plan, say) takes least time.

    Each width's steps are taken from its lower bound, which schedules meet or nearly so: no schedule is made here.

    Args:
      streams: (user, item) of each stream, as in `schedule`.
      costs: what a step of each width costs.

    Returns:
      One of the table's widths, the narrowest of equally good ones. A width at which a stream needs more lanes than an
      int32 counts is taken only if that holds for all of them, and is then the narrowest.

    Raises:
      ValueError: as `schedule`.
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
    """int32 [N]: how long a chain of interactions must come before each. Arguments and errors as in `schedule`."""
    if not len(user):
        return np.zeros(0, np.int32)
    return _levels(*_columns(user, item))[0]


def _columns(user: np.ndarray, item: np.ndarray) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Checked columns: (user, item) as contiguous int32 [N], then how many ids each may hold, O(N)."""
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
        if high >= min(4 * len(ids), MOST_LANES):  # a window of a large data set: its tables are for those it touches
            known, ids = np.unique(ids, return_inverse=True)
            high = len(known) - 1
        columns.append(np.ascontiguousarray(ids, np.int32))
        sizes.append(high + 1)
    return columns[0], columns[1], sizes[0], sizes[1]


def _reversed(user: np.ndarray, item: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The stream run backwards: its levels are the heights of the stream, last interaction first."""
    return np.ascontiguousarray(user[::-1]), np.ascontiguousarray(item[::-1])


def _refuse_too_many_lanes(steps: int, width: int) -> None:
    if steps * width > MOST_LANES:
        raise UserError(
            f"{steps:,} steps of width {width:,} are {steps * width:,} lanes, more than an int32 counts: "
            "take a narrower width or more windows"
        )


@numba.njit(cache=True)
def _levels(user, item, users, items):  # pragma: no cover - compiled
    """(int32 [N], int32 [depth]): level of each interaction, and the number of interactions at each level."""
    n = len(user)
    level = np.empty(n, np.int32)
    counts = np.zeros(n, np.int32)
    user_next = np.zeros(users, np.int32)  # the level of each user's next interaction, as far as the user says
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
    """A lower bound on the steps, from the number of interactions at each level (or height, or head, or tail): int.

    What is at level l or beyond cannot start before step l, and takes its own room: no schedule has fewer than
    `l + ceil(#{interactions at level >= l} / width)` steps. l = 0 gives `ceil(N / width)`, the last l the depth.
    """
    at_or_beyond = np.cumsum(counts[::-1], dtype=np.int64)[::-1]
    return int(np.max(np.arange(len(counts)) - (-at_or_beyond // width), initial=0))


@numba.njit(cache=True)
def _by_falling(key, counts):  # pragma: no cover - compiled
    """int32 [N]: a stable counting sort by falling key, of which `counts` [K] says how many have each value."""
    begin = np.zeros(len(counts), np.int32)
    for value in range(len(counts) - 2, -1, -1):
        begin[value] = begin[value + 1] + counts[value + 1]
    order = np.empty(len(key), np.int32)
    for k in range(len(key)):
        order[begin[key[k]]] = k
        begin[key[k]] += 1
    return order


@numba.njit(cache=True)
def _place(order, user, item, users, items, width):  # pragma: no cover - compiled
    """(step, lane), int32 [N]: each of `order` into the earliest step with room after its user's and its item's last.

    `order` must be topological, for then those are its parents. In an order of the stream run backwards they are its
    children, and steps count from the end. Full steps are skipped by a union-find.
    """
    n = len(order)
    step = np.empty(n, np.int32)
    lane = np.empty(n, np.int32)
    used = np.zeros(n + 1, np.int32)
    skip = np.zeros(n + 1, np.int32)  # of a full step, a later one to look at; 0 if there is room
    user_next = np.zeros(users, np.int32)  # the first step after each user's last
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


def _again(user, item, users, items, width, found):
    """The schedule `found` (step, lane, steps, bound), with a sharper bound and, if there is one, a shorter schedule.

    Taken by falling tail, and backwards by falling head: both are topological, as heights and levels are.
    """
    head = _heads(previous_and_next(user, users)[0], previous_and_next(item, items)[0], width)
    back_user, back_item = _reversed(user, item)
    tail = _heads(previous_and_next(back_user, users)[0], previous_and_next(back_item, items)[0], width)
    tail = np.ascontiguousarray(tail[::-1])
    step, lane, steps, bound = found
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
def _heads(user_previous, item_previous, width):  # pragma: no cover - compiled
    """int32 [N]: a step before which no schedule of this width can run each interaction; at least its level.

    By induction in time order. Those ancestors of v whose heads are at least a all run at step a or later and before
    v, at most `width` of them a step: v cannot run before step `a + ceil(#{such ancestors} / width)`, whatever a is.
    An ancestor's head is above that of its own ancestors, as its last line here says, and so is v's.
    """
    n = len(user_previous)
    head = np.zeros(n, np.int32)
    ancestor_of = np.full(n, -1, np.int32)  # the last v of which each is an ancestor
    counts = np.zeros(n + 1, np.int32)  # of v's ancestors by their head
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
def _joint_bound(head, tail, width):  # pragma: no cover - compiled
    """A lower bound on the steps from heads [N] and tails [N] together, in O(N + (largest head) x (largest tail)).

    What has head >= a and tail >= b runs neither before step a nor in the last b steps: what lies between must hold
    it, so there are at least `a + ceil(#{such interactions} / width) + b` steps.
    """
    order = np.argsort(-head)
    counts = np.zeros(tail.max() + 1, np.int32)  # of those with head >= a, by their tail
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

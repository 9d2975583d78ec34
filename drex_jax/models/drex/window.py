"""Windows: interactions as arrays of fixed shape for the scan, with their schedule, rows and counters.

Only the rows of the users and items in a window are gathered into the scan's table, so its cost does not depend on the
number of users and items in the data. All windows of a plan have one shape, so one compiled step serves them all.

Letters: n interactions of a window (padded), C blocks of K steps, B lanes, U users and I items of the data, Ru and Ri
rows of a window.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from drex_jax.common.cache import Cache, no_cache
from drex_jax.common.padding import power_of_two
from drex_jax.common.streams import previous_and_next
from drex_jax.data.events import Events
from drex_jax.data.tokens import Tokens
from drex_jax.models.drex import schedule
from drex_jax.models.drex.counters import Before
from drex_jax.models.drex.recurrence import Layout
from drex_jax.text import batching

KEPT_BYTES = 1 << 30  # windows of a plan are kept in memory up to this size; larger ones are built at each use
BLOCK_LANES, BLOCK_STEPS = 512, 16  # a block has about 512 lanes, which fit a core's cache, and at least 16 steps


@dataclasses.dataclass(frozen=True)
class Packing:
    """The packing of windows for the devices.

    Attributes:
      width: lanes of a step.
      devices: number of devices that share a window; it divides the interactions and the chunks of texts.
      split: if true, the number of devices divides the lanes of a step, too.
      cache: cache of schedules.
      rounded: if true, sizes are powers of two, so that few compiled programs serve windows of any size.
      least: smaller windows are packed like one of this many interactions, so that one program serves them all.
    """

    width: int = 16
    devices: int = 1
    split: bool = False
    cache: Cache = no_cache
    rounded: bool = False
    least: int = 0

    def room(self, least: int) -> int:
        """Return the size of an array for at least `least` elements."""
        return power_of_two(least) if self.rounded else least


DEFAULT_PACKING = Packing()


class Window(NamedTuple):
    """One window. Padding is not `valid` and runs in no lane.

    Attributes:
      valid: bool [n], false for padding.
      rating: float32 [n], NaN where missing.
      counts, gap, bias: float32 [n, 2], the fields of `Before`.
      vectors: float32 [n, width] by name, NaN where missing.
      text: the reviews in length buckets, or None.
      user_rows, item_rows: int32 [Ru], [Ri], the users and items of the window; padding is U or I.
      user_fresh, item_fresh: bool [Ru], [Ri], true for users and items that first appear in this window.
      user_auxiliary, item_auxiliary: float32 [Ru, 2], [Ri, 2], running bias and log1p count after the window.
      layout: where each interaction runs; the table has the rows of users, then of items, then two for each lane.
      item: int32 [n], the item; padding is I.
      known: int32 [n], the number of items before each interaction; negatives are drawn from them.
    """

    valid: np.ndarray
    rating: np.ndarray
    counts: np.ndarray
    gap: np.ndarray
    bias: np.ndarray
    vectors: dict[str, np.ndarray]
    text: Any
    user_rows: np.ndarray
    item_rows: np.ndarray
    user_fresh: np.ndarray
    item_fresh: np.ndarray
    user_auxiliary: np.ndarray
    item_auxiliary: np.ndarray
    layout: Layout
    item: np.ndarray
    known: np.ndarray


class Plan(NamedTuple):
    """Windows of one shape, and their schedules.

    Attributes:
      windows: the windows in time order.
      begins: the first interaction of each window, and the end of the last one.
      schedules: the schedule of each window.
    """

    windows: Sequence[Window]
    begins: np.ndarray
    schedules: list[schedule.Schedule]

    def __len__(self) -> int:
        return int(self.begins[-1] - self.begins[0])


class Windows(Sequence[Window]):
    """Windows that are built on demand.

    If all windows together are small, they are built once. Their arrays are then read-only, so that copies on devices
    stay valid.
    """

    def __init__(self, count: int, make: Callable[[int], Window]):
        self._count, self._make = count, make
        first = make(0)
        small = count * sum(leaf.nbytes for leaf in jax.tree.leaves(first)) <= KEPT_BYTES
        self._kept = [first, *map(make, range(1, count))] if small else []
        for array in jax.tree.leaves(self._kept):
            array.setflags(write=False)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: Any) -> Any:
        """Return a window, or a list of windows for a slice."""
        if isinstance(number, slice):
            return [self[index] for index in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(f"window {number} of {len(self)}")
        return self._kept[number] if self._kept else self._make(number % len(self))


def _pad(values: np.ndarray, size: int, fill: float) -> np.ndarray:
    padding = [(0, size - len(values))] + [(0, 0)] * (values.ndim - 1)
    return np.pad(values, padding, constant_values=fill)


def _texts(tokens: Tokens, shapes: tuple[batching.BucketShape, ...]) -> batching.TextBatch:
    rows = np.arange(len(tokens.cut))
    return batching.plan(tokens.ids, tokens.offsets, rows, shapes, tokens.features)


def _text_shapes(tokens: Tokens, spans: list[tuple[int, int]], packing: Packing) -> tuple[batching.BucketShape, ...]:
    """Return the bucket shapes that hold the reviews of every window."""
    lengths = tokens.lengths
    longest = packing.room(int(lengths.max(initial=1)))
    windows, buckets = [lengths[a:b] for a, b in spans], batching.bucket_lengths(longest)
    if max(b - a for a, b in spans) <= packing.least > 0:
        windows, buckets = [*windows, np.full(packing.least, longest)], (longest,)
    fitted = batching.fit(windows, buckets, devices=packing.devices)
    return tuple(shape._replace(chunks=packing.room(shape.chunks), rows=packing.room(shape.rows)) for shape in fitted)


def window_begins(n: int, count: int) -> np.ndarray:
    """Return the borders of `count` chronological windows of near-equal size (at most n), int64 [count + 1]."""
    return np.linspace(0, n, max(min(count, n), 1) + 1).round().astype(np.int64)


def window_streams(user: np.ndarray, item: np.ndarray, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the users and items, int32 each, of `count` chronological windows of a stream (`window_begins`)."""
    return [(user[a:b], item[a:b]) for a, b in itertools.pairwise(window_begins(len(user), count))]


def _auxiliary_after(ids: np.ndarray, rows: np.ndarray, after: np.ndarray, spans: list[tuple[int, int]]):
    """Return, for each window, the auxiliary inputs of its users (or items) after it, float32 [rows, 2].

    Args:
      ids: int32 [N], the user (or item) of each interaction.
      rows: float32 [N, 2], its auxiliary inputs just before each interaction.
      after: float32 [ids, 2], the auxiliary inputs of all users (or items) after the last interaction.
      spans: begin and end of each window.
    """
    _, following = previous_and_next(ids, len(after))
    stacked = np.concatenate([rows, after])
    auxiliaries = []
    for a, b in spans:
        touched, from_end = np.unique(ids[a:b][::-1], return_index=True)
        later = following[b - 1 - from_end]  # the next interaction after the window; N if there is none
        auxiliaries.append(stacked[np.where(later < len(ids), later, len(ids) + touched)])
    return auxiliaries


class Packed(NamedTuple):
    """Windows of a stream, packed into layouts of one shape.

    Attributes:
      schedules: the schedule of each window; all have one width.
      touched: the users and the items of each window, ascending.
      layout: function from the number of a window to its layout; the table has the rows of users, then of items, then
        two for each lane.
      users, items: rows of users and of items in every table: as many as the largest window needs.
      size: interactions of every window, with padding.
    """

    schedules: list[schedule.Schedule]
    touched: list[tuple[np.ndarray, np.ndarray]]
    layout: Callable[[int], Layout]
    users: int
    items: int
    size: int


def pack(user: np.ndarray, item: np.ndarray, spans: list[tuple[int, int]], packing: Packing) -> Packed:
    """Build the schedules and layouts of the windows of a stream.

    Args:
      user: int32 [N], in learning order.
      item: int32 [N], in learning order.
      spans: begin and end of each window.
      packing: how windows are packed.
    """
    schedules = _schedules([(user[a:b], item[a:b]) for a, b in spans], packing)
    touched = [(np.unique(user[a:b]), np.unique(item[a:b])) for a, b in spans]
    num_users, num_items = (
        packing.room(max(packing.least, *(len(ids) for ids in side))) for side in zip(*touched, strict=True)
    )
    longest = packing.room(max(packing.least, *(b - a for a, b in spans)))
    size = -(-max(longest, 1) // packing.devices) * packing.devices
    width = schedules[0].width
    steps = packing.room(max(1, packing.least // width, *(packed.steps for packed in schedules)))
    blocks = -(-steps // max(BLOCK_STEPS, BLOCK_LANES // width))
    steps = -(-steps // blocks)  # steps of a block: equal blocks need the least padding
    empty = num_users + num_items + 2 * np.arange(width, dtype=np.int32)

    def layout(number: int) -> Layout:
        (a, b), packed, (users, items) = spans[number], schedules[number], touched[number]
        n = b - a
        lanes = np.full((blocks * steps, width), n, np.int32)
        lanes[: packed.steps] = packed.events()
        user_local = np.append(np.searchsorted(users, user[a:b]), 0)[lanes]
        item_local = np.append(np.searchsorted(items, item[a:b]), 0)[lanes] + num_users
        rows = np.stack([np.where(lanes < n, user_local, empty), np.where(lanes < n, item_local, empty + 1)], -1)
        return Layout(
            lanes=np.where(lanes < n, lanes, size).astype(np.int32).reshape(blocks, steps, width),
            rows=rows.astype(np.int32).reshape(blocks, steps, width, 2),
            slots=_pad(packed.slots().astype(np.int32), size, 0),
        )

    return Packed(schedules, touched, layout, num_users, num_items, size)


def _schedules(streams: list[tuple[np.ndarray, np.ndarray]], packing: Packing) -> list[schedule.Schedule]:
    """Return a schedule for each window, all of one width."""
    width = packing.width
    if packing.split:
        width = -(-width // packing.devices) * packing.devices

    def made(user: np.ndarray, item: np.ndarray) -> schedule.Schedule:
        columns = packing.cache(
            "schedule",
            {"user": user, "item": item},
            {"width": width},
            schedule.VERSION,
            lambda: schedule.build_schedule(user, item, width).to_arrays(),
        )
        return schedule.Schedule.from_arrays(columns)

    return [made(*stream) for stream in streams]


def plan(
    events: Events,
    before: Before,
    after: tuple[np.ndarray, np.ndarray],
    *,
    count: int,
    packing: Packing,
    known_users: int = 0,
    known_items: int = 0,
) -> Plan:
    """Prepare interactions in `count` windows.

    Args:
      events: the interactions in learning order.
      before: the counters before each interaction.
      after: `counters.tables` after the last interaction.
      count: number of windows.
      packing: how windows are packed.
      known_users: number of users before the first interaction; smaller user numbers are not fresh.
      known_items: number of items before the first interaction; smaller item numbers are not fresh.
    """
    begins = window_begins(len(events), count)
    spans = list(itertools.pairwise(begins))
    packed = pack(events.user, events.item, spans, packing)
    size = packed.size
    met_users = np.maximum.accumulate(np.concatenate([[known_users], events.user + 1]))
    met_items = np.maximum.accumulate(np.concatenate([[known_items], events.item + 1]))
    auxiliary = np.stack([before.bias, np.log1p(before.counts)], axis=-1)  # [N, side, 2]
    user_after = _auxiliary_after(events.user, auxiliary[:, 0], after[0], spans)
    item_after = _auxiliary_after(events.item, auxiliary[:, 1], after[1], spans)
    tokens = events.tokens
    shapes = () if tokens is None else _text_shapes(tokens, spans, packing)

    def make(number: int) -> Window:
        (a, b), (users, items) = spans[number], packed.touched[number]
        return Window(
            valid=np.arange(size) < b - a,
            rating=_pad(events.rating[a:b], size, np.nan),
            counts=_pad(before.counts[a:b], size, 0),
            gap=_pad(before.gap[a:b], size, np.nan),
            bias=_pad(before.bias[a:b], size, 0),
            vectors={name: _pad(values[a:b], size, np.nan) for name, values in events.vectors.items()},
            text=None if tokens is None else _texts(tokens.part(a, b), shapes),
            user_rows=_pad(users.astype(np.int32), packed.users, events.num_users),
            item_rows=_pad(items.astype(np.int32), packed.items, events.num_items),
            user_fresh=_pad(users >= met_users[a], packed.users, False),
            item_fresh=_pad(items >= met_items[a], packed.items, False),
            user_auxiliary=_pad(user_after[number], packed.users, 0),
            item_auxiliary=_pad(item_after[number], packed.items, 0),
            layout=packed.layout(number),
            item=_pad(events.item[a:b], size, events.num_items),  # no negative has this number
            known=_pad(met_items[a:b].astype(np.int32), size, 0),
        )

    return Plan(Windows(len(spans), make), begins, packed.schedules)


class Negatives(NamedTuple):
    """Negative items of a window's interactions, each with its state at the time of its interaction.

    Attributes:
      state: int32 [n, draws], index into [the n item states before each interaction, then the I states after the
        window].
      valid: bool [n, draws], false if there is no item to draw, or the drawn item is the interaction's own item.
    """

    state: np.ndarray
    valid: np.ndarray


def negatives(item: np.ndarray, known: np.ndarray, num_items: int, draws: int, rng: np.random.Generator) -> Negatives:
    """Draw uniform negatives for each interaction of a window.

    A negative j of interaction k is drawn from the items that appeared before k. Its state at k is the state before
    j's first interaction at or after k in the window; without one, it is the state after the window.

    Args:
      item: int [n], the items of the window's interactions in time order; padding at the end is I.
      known: int [n], number of items before each interaction; with 0 there is nothing to draw.
      num_items: number of items in the data.
      draws: negatives of each interaction.
      rng: random generator.
    """
    n = len(item)
    drawn = (rng.random((n, draws)) * known[:, None]).astype(np.int64)
    order = np.argsort(item, kind="stable")
    keys = item[order].astype(np.int64) * n + order
    position = np.searchsorted(keys, drawn * n + np.arange(n)[:, None])
    following = order[np.minimum(position, n - 1)]
    inside = (position < n) & (item[following] == drawn)
    valid = (known[:, None] > 0) & (drawn != item[:, None])
    return Negatives(np.where(inside, following, n + np.minimum(drawn, num_items - 1)).astype(np.int32), valid)

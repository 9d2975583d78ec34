"""The stream of DReX: train windows with negatives, and replays of train, validation and test.

Letters: n interactions of a window, U users, I items, D state size, E = D + 2.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.common.side import Side
from drex_jax.common.streams import previous_and_next
from drex_jax.data.events import Events
from drex_jax.models.drex import counters, recurrence, window
from drex_jax.models.drex.model import DReX, DReXOptions, WindowBatch
from drex_jax.models.protocol import Compile, Params, States, Stream, Trace, compile_alone

OBSERVED = 65_536  # interactions of a window without gradients
AHEAD = 2  # windows that may wait for the device


@dataclasses.dataclass(frozen=True)
class WindowSegment:
    """A prepared segment: its windows, and the next interaction of the item of each interaction."""

    plan: window.Plan
    item_next: np.ndarray  # int32 [n]: the item's next interaction in the segment; n + item if there is none

    def __len__(self) -> int:
        return len(self.plan)


class WindowStream(Stream):
    """Windows in time order, each of them one update; states are carried from window to window."""

    model: DReX

    def __init__(
        self,
        options: DReXOptions,
        events: Events,
        sizes: tuple[int, int, int],
        compile_program: Compile = compile_alone,
        seed: int = 0,
        pretrained: Callable[[], tuple[Params, float] | None] = lambda: None,
    ):
        """Prepare train, validation and test.

        Args:
          options: the options of the model; those that depend on the data are filled in here.
          events: all interactions, in the order of learning.
          sizes: the numbers of train, validation and test interactions.
          compile_program: a function that compiles a program over the devices.
          seed: the seed of the negatives.
          pretrained: a function that returns the result of `Stream.pretrained`.
        """
        self.num_users, self.num_items = events.num_users, events.num_items
        train = events[: sizes[0]]
        self.model = DReX(
            dataclasses.replace(
                options,
                known_users=int(train.user.max(initial=-1)) + 1,
                known_items=int(train.item.max(initial=-1)) + 1,
                vector_widths=tuple(events.vectors[name].shape[1] for name in options.network.vector_modalities),
            )
        )
        self.seed, self._pretrained = seed, pretrained
        past = counters.History.start(self.num_users, self.num_items)
        self._start_auxiliary = counters.tables(past, options.bias)
        begins = np.cumsum((0, *sizes))
        segments = []
        for part, (begin, end) in enumerate(itertools.pairwise(begins)):
            self._past = past  # in the end: the counters before test
            segment, past = self._prepared(events[int(begin) : int(end)], past, 0 if part else options.bptt_windows)
            segments.append(segment)
        self._train: window.Plan = segments[0].plan
        train_segment, validation, test = segments
        self._segments = (train_segment, validation, test)
        self.width = self._train.schedules[0].width
        self._observe = compile_program(self.model.observe_window)

    def _prepared(self, stretch: Events, past: counters.History, count: int) -> tuple[WindowSegment, counters.History]:
        """Return the prepared segment of interactions that follow `past`, and the counters after it.

        `count`: the number of windows; 0: windows of `OBSERVED` interactions.
        """
        options = self.model.options
        before, after = counters.advance(stretch, past, options.bias)
        plan = window.plan(
            stretch,
            before,
            counters.tables(after, options.bias),
            count=count or -(-len(stretch) // OBSERVED),
            packing=options.packing,
            known_users=int(np.flatnonzero(past.user_count).max(initial=-1)) + 1,
            known_items=int(np.flatnonzero(past.item_count).max(initial=-1)) + 1,
        )
        _, following = previous_and_next(stretch.item, self.num_items)
        item_next = np.where(following < len(stretch), following, len(stretch) + stretch.item)
        return WindowSegment(plan, item_next.astype(np.int32)), after

    def test_with(self, test: Events) -> WindowSegment:
        """Return the test segment for interactions that may lack their rating, text, vectors or time.

        A missing time is NaN. The gaps before and after it are then treated like the gap before a first interaction.
        """
        segment, _ = self._prepared(dataclasses.replace(test, tokens=None), self._past, 0)
        if test.tokens is None:
            return segment
        whole, struck = self._segments[2].plan, []
        for before, events, begin in zip(whole.windows, segment.plan.windows, whole.begins[:-1], strict=True):
            spoken = np.append(test.tokens.lengths[begin : begin + len(events.rating)] > 0, False)
            nowhere = len(events.rating)
            rows = [np.where(spoken[np.minimum(row, len(spoken) - 1)], row, nowhere) for row in before.text.row]
            struck.append(events._replace(text=before.text._replace(row=tuple(row.astype(np.int32) for row in rows))))
        return dataclasses.replace(segment, plan=window.Plan(struck, segment.plan.begins, segment.plan.schedules))

    def start(self, params: Params) -> States:
        """Return all initial rows: states are the learned shared vector, plus offsets for users and items of train."""
        user, item = self._start_auxiliary
        return States(self.model.rows(params, Side.USER, user), self.model.rows(params, Side.ITEM, item))

    def steps_per_epoch(self) -> int:
        """Return the number of train windows."""
        return len(self._train.windows)

    def batches(self, epoch: int) -> Iterator[WindowBatch]:
        """Yield the train windows in time order, with this epoch's negatives."""
        options = self.model.options
        for number, train_window in enumerate(self._train.windows):
            negatives = None
            if options.ranking_weight:
                rng = np.random.default_rng((self.seed, epoch, number))
                items, known = train_window.item, train_window.known
                negatives = window.negatives(items, known, self.num_items, options.negatives, rng)
            yield WindowBatch(train_window, negatives)

    def step_bytes(self) -> int:
        """Return an estimate of the bytes of a training step: residuals of scan and heads, states, the window."""
        options, train = self.model.options.network, self._train.windows[0]
        n, size = len(train.rating), options.state_size
        lanes = int(train.layout.lanes.size)
        recurrent = recurrence.residual_bytes(n, lanes, size, options.feature_size)
        an_item = size + (options.hidden_size if options.head == "mlp" else 0)
        own = n // self.model.options.packing.devices
        heads = 4 * own * 3 * an_item * (2 + (self.model.options.negatives if options.ranking else 0))
        states = 4 * 3 * (size + 2) * (self.num_users + self.num_items)
        return recurrent + heads + states + sum(leaf.nbytes for leaf in jax.tree.leaves(train))

    def pretrained(self) -> tuple[Params, float] | None:
        """Return the initial parameters of a trained BERT, and its peak learning rate; None without such a BERT."""
        return self._pretrained()

    def schedule(self) -> dict[str, Any]:
        """Return figures about the schedules of the train windows."""
        schedules = self._train.schedules
        steps = sum(schedule.steps for schedule in schedules)
        return {
            "windows": len(schedules),
            "depth": sum(schedule.depth for schedule in schedules),
            "width": self.width,
            "steps": steps,
            "bound": sum(schedule.bound for schedule in schedules),
            "fill": sum(len(schedule.step) for schedule in schedules) / max(steps * self.width, 1),
        }

    def segments(self) -> tuple[WindowSegment, WindowSegment, WindowSegment]:
        """Return train, validation and test."""
        return self._segments

    def observe(self, params: Params, states: States, segment: WindowSegment) -> tuple[States, Trace]:
        """Replay a segment. Return the rows after it, and the rows of each of its interactions."""
        users, items, now = [], [], states
        for n, found in self._replay(params, states, segment):
            now, user, item = found
            users.append(user[:n])
            items.append(item[:n])
        user, item = jnp.concatenate(users), jnp.concatenate(items)
        return now, Trace(user, item, jnp.concatenate([item, now.item])[segment.item_next])

    def after(self, params: Params, states: States, segment: WindowSegment) -> States:
        """Replay a segment. Return the rows after it."""
        windows = self._replay(params, states, segment)
        return functools.reduce(lambda _, window: window[1][0], windows, states)

    def _replay(
        self, params: Params, states: States, segment: WindowSegment
    ) -> Iterator[tuple[int, tuple[States, jax.Array, jax.Array]]]:
        """Yield (size, (states after, user rows, item rows)) for each window; at most `AHEAD` windows are in flight."""
        rows: collections.deque[jax.Array] = collections.deque()
        for events, n in zip(segment.plan.windows, np.diff(segment.plan.begins).tolist(), strict=True):
            found = states, *_ = self._observe(params, states, events)
            yield n, found
            rows.append(found[1])
            if len(rows) > AHEAD:
                jax.block_until_ready(rows.popleft())

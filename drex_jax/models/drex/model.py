"""DReX over one data set (arXiv 2602.19702; reconstruction: docs/faithfulness.md): its windows, its loss, its replay.

Letters: n interactions of a window, U users, I items, D state size, E = D + 2.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.common.streams import previous_and_next
from drex_jax.data.events import Events
from drex_jax.devices.axis import ALONE, Axis
from drex_jax.models import losses
from drex_jax.models.drex import counters, recurrence, window
from drex_jax.models.drex.core import DReXOptions, Keys, Refiner
from drex_jax.models.protocol import Compile, States, Trace, compile_alone
from drex_jax.text import encoder as text_encoder

OBSERVED = 65_536  # interactions a window when no gradient is taken
AHEAD = 2  # windows that may wait for the device


class Batch(NamedTuple):
    """A training window and its negatives (None without a ranking loss)."""

    window: window.Window
    negatives: window.Negatives | None


@dataclasses.dataclass(frozen=True)
class Segment:
    """A prepared stretch: its windows, and where each of its items goes on."""

    plan: window.Plan
    item_next: np.ndarray  # int32 [n]: the item's next interaction in the stretch; n + item where there is none

    def __len__(self) -> int:
        return len(self.plan)


class DReX(Refiner):
    """The model over one data set. See `drex_jax.models.protocol.Model`."""

    chunk = 1

    def __init__(
        self,
        options: DReXOptions,
        events: Events,
        sizes: tuple[int, int, int],
        compile_program: Compile = compile_alone,
    ):
        """Prepares train, validation and test.

        Args:
          options: sizes and constants.
          events: all interactions, in the order of learning.
          sizes: how many of them are train, validation and test.
          compile_program: makes a compiled function of a program over the devices.
        """
        super().__init__(options)
        self.num_users, self.num_items = events.num_users, events.num_items
        train = events[: sizes[0]]
        self.known_users = int(train.user.max(initial=-1)) + 1  # met in train: only they may have an offset
        self.known_items = int(train.item.max(initial=-1)) + 1
        past = counters.History.start(self.num_users, self.num_items)
        self._start_auxiliary = counters.tables(past, options.bias)
        begins = np.cumsum((0, *sizes))
        segments = []
        for part, (begin, end) in enumerate(itertools.pairwise(begins)):
            self._past = past  # before the last part, when all are done
            segment, past = self._prepared(events[int(begin) : int(end)], past, 0 if part else options.bptt_windows)
            segments.append(segment)
        self._train: window.Plan = segments[0].plan
        train_segment, validation, test = segments
        self._segments = (train_segment, validation, test)
        self._observe = compile_program(self.observe_window)

    def _prepared(self, stretch: Events, past: counters.History, count: int) -> tuple[Segment, counters.History]:
        """A stretch that follows `past` in so many windows (0: of `OBSERVED` interactions), and what follows it."""
        before, after = counters.advance(stretch, past, self.options.bias)
        plan = window.plan(
            stretch,
            before,
            counters.tables(after, self.options.bias),
            count=count or -(-len(stretch) // OBSERVED),
            packing=self.options.packing,
            known_users=int(np.flatnonzero(past.user_count).max(initial=-1)) + 1,
            known_items=int(np.flatnonzero(past.item_count).max(initial=-1)) + 1,
        )
        _, following = previous_and_next(stretch.item, self.num_items)
        item_next = np.where(following < len(stretch), following, len(stretch) + stretch.item)
        return Segment(plan, item_next.astype(np.int32)), after

    def test_with(self, test: Events) -> Segment:
        """The test where some interactions lack their rating, text, vectors or time; the compiled programs are its own.

        A missing time is NaN: the gaps on both sides of it are then read as those of a first meeting.
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

    # Parameters and states

    def with_seed(self, seed: int) -> DReX:
        """The same with other negatives."""
        other = copy.copy(self)
        other.options = dataclasses.replace(self.options, seed=seed)
        return other

    def init(self, key: jax.Array) -> dict[str, Any]:
        """New parameters: network, text encoder (if any) and offsets (if any, zeros)."""
        network_key, text_key = jax.random.split(key)
        sample = jax.tree.map(lambda x: jnp.asarray(x[:1]), self._modalities(self._train.windows[0], None))
        params = {"network": self.network.init(network_key, sample, method="everything")["params"]}
        options = self.options.network
        if options.vocabulary_size:
            params["text"] = text_encoder.init(options.text_encoder, text_key)
        if options.offsets:
            params["user_offset"] = jnp.zeros((self.known_users, options.state_size))
            params["item_offset"] = jnp.zeros((self.known_items, options.state_size))
        return params

    def start(self, params: dict[str, Any]) -> States:
        """Everyone's first state: the learned shared vector, plus the offset of those met in train."""
        user, item = self._start_auxiliary
        return States(self.rows(params, "user", user), self.rows(params, "item", item))

    # Training

    def renew(self, params: dict[str, Any], carry: States | None, epoch: int, key: jax.Array) -> States:
        """Everyone's rows at the start: an epoch begins with the first interaction."""
        return self.start(params)

    def steps_per_epoch(self) -> int:
        """Windows."""
        return len(self._train.windows)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The train windows in time order, with this epoch's negatives."""
        for number, train_window in enumerate(self._train.windows):
            if not self.options.ranking_weight:
                yield Batch(train_window, None)
                continue
            rng = np.random.default_rng((self.options.seed, epoch, number))
            draws = self.options.negatives
            yield Batch(
                train_window, window.negatives(train_window.item, train_window.known, self.num_items, draws, rng)
            )

    def loss(
        self, params: dict[str, Any], carry: States, batch: Batch, key: jax.Array, axis: Axis = ALONE
    ) -> tuple[jax.Array, tuple[States, Mapping[str, jax.Array]]]:
        """One window: exact back-propagation through all its updates; the states that enter are constants.

        Devices share its texts, its features and its predictions, and the lanes of each step where they are split.
        """
        options, events = self.options, batch.window
        keys = Keys(*jax.random.split(key, 3))
        user_before, item_stack, after = self.scan(params, carry, events, keys, axis)
        user_before, item_before = axis.shard(user_before), axis.shard(item_stack)
        rows = axis.shard(jnp.arange(len(item_stack)))

        def scores(method: str, *arguments: jax.Array) -> jax.Array:
            return self._apply(params, method, *arguments, rows, rngs={"dropout": keys.network})

        total = jnp.zeros(())
        sums: dict[str, jax.Array] = {}
        if options.rating_weight:
            target = (axis.shard(jnp.asarray(events.rating)) - options.rating_mean) / options.rating_deviation
            rated = axis.shard(jnp.asarray(events.valid)) & ~jnp.isnan(target)
            if options.network.residual:
                target = target - self._base(user_before, item_before)
            error = losses.squared_error(scores("rate", user_before, item_before), target, rated, axis)
            total += options.rating_weight * error
            sums["rating_loss"] = error * options.rating_deviation**2
        if batch.negatives is not None:
            stack = jnp.concatenate([item_stack, after.item])
            picks = jnp.concatenate([rows[:, None], axis.shard(jnp.asarray(batch.negatives.state))], 1)  # itself first
            preferences = scores("prefer", user_before, stack, picks)
            positive, negative = preferences[:, 0], preferences[:, 1:]
            valid = axis.shard(jnp.asarray(batch.negatives.valid))
            ranking = losses.RANKING_LOSSES[options.ranking_loss](positive, negative, valid, axis)
            total += options.ranking_weight * ranking
            sums["ranking_loss"] = ranking
        return total, (jax.lax.stop_gradient(after), sums)

    # Use

    def segments(self) -> tuple[Segment, Segment, Segment]:
        """Train, validation and test."""
        return self._segments

    def step_bytes(self) -> int:
        """About how much memory a training step takes: what the scan keeps, what the heads keep, states, parameters."""
        options, train = self.options.network, self._train.windows[0]
        n, size = len(train.rating), options.state_size
        lanes = int(train.layout.lanes.size)
        recurrent = recurrence.residual_bytes(n, lanes, size, options.feature_size)
        an_item = size + (options.hidden_size if options.head == "mlp" else 0)
        own = n // self.options.packing.devices
        heads = 4 * own * 3 * an_item * (2 + (self.options.negatives if options.ranking else 0))
        states = 4 * 3 * (size + 2) * (self.num_users + self.num_items)
        return recurrent + heads + states + sum(leaf.nbytes for leaf in jax.tree.leaves(train))

    @property
    def schedules(self) -> list:
        """The train windows' schedules."""
        return self._train.schedules

    def observe(self, params: dict[str, Any], carry: States, segment: Segment) -> tuple[States, Trace]:
        """Replays a segment. The states after it and the rows of each of its interactions."""
        users, items, now = [], [], carry
        for n, found in self._replay(params, carry, segment):
            now, user, item = found
            users.append(user[:n])
            items.append(item[:n])
        user, item = jnp.concatenate(users), jnp.concatenate(items)
        return now, Trace(user, item, jnp.concatenate([item, now.item])[segment.item_next])

    def after(self, params: dict[str, Any], carry: States, segment: Segment) -> States:
        """Replays a segment: the states after it."""
        windows = self._replay(params, carry, segment)
        return functools.reduce(lambda _, window: window[1][0], windows, carry)

    def _replay(
        self, params: dict[str, Any], carry: States, segment: Segment
    ) -> Iterator[tuple[int, tuple[States, jax.Array, jax.Array]]]:
        """For each window its size, the carry after it, and its rows; the device is at most `AHEAD` windows behind."""
        rows: collections.deque[jax.Array] = collections.deque()
        for events, n in zip(segment.plan.windows, np.diff(segment.plan.begins).tolist(), strict=True):
            found = carry, *_ = self._observe(params, carry, events)
            yield n, found
            rows.append(found[1])
            if len(rows) > AHEAD:
                jax.block_until_ready(rows.popleft())

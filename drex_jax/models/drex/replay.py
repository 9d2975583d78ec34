"""Continue a finished run: new interactions refine the states of their users and items, exactly as in training.

All work is done on tables of only the users and items in the new interactions, so the cost of a call does not depend on
the number of other users and items.

Letters: n new interactions, U users, I items, E row size.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.common.growing import GrowingArray
from drex_jax.common.padding import power_of_two
from drex_jax.common.progress import progress_bar
from drex_jax.data.events import Events
from drex_jax.devices.axis import ALONE
from drex_jax.models.drex import counters, window
from drex_jax.models.drex.counters import History
from drex_jax.models.drex.model import DReX
from drex_jax.models.drex.stream import OBSERVED
from drex_jax.models.protocol import Params, States
from drex_jax.models.running_bias import BiasState

WIDTH = 16  # the largest number of lanes of a step
EMPTY = {"rows": 0.0, "count": 0, "last": np.nan, "rating_sum": 0.0, "rating_count": 0}  # new rows


class _Table:
    """The columns of one side, named as in `EMPTY`, with one row for each user (or item)."""

    def __init__(self, **columns: np.ndarray):
        self._columns = {name: GrowingArray(values, EMPTY[name]) for name, values in columns.items()}

    @property
    def size(self) -> int:
        return len(self._columns["count"])

    def grow(self, size: int) -> None:
        for column in self._columns.values():
            column.resize(size)

    def take(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        return {name: column.values[numbers] for name, column in self._columns.items()}

    def put(self, numbers: np.ndarray, **columns: np.ndarray) -> None:
        for name, values in columns.items():
            self._columns[name].values[numbers] = values

    def __getitem__(self, name: str) -> np.ndarray:
        return self._columns[name].values


class Passage(NamedTuple):
    """The result of a replay of n interactions of U users and I items.

    Attributes:
      states: the rows after the replay, NumPy arrays [U, E] and [I, E].
      past: the counters after the replay.
      user, item: float32 [n, E], the rows just before each interaction.
    """

    states: States
    past: History
    user: np.ndarray
    item: np.ndarray


class Continuation:
    """Replays interactions from any rows and counters. Sizes are rounded, so few compiled programs serve many calls."""

    def __init__(self, model: DReX, params: Params, least: int = 0):
        """Prepare a program.

        Args:
          model: the model of the run.
          params: its parameters; offsets are not read, because rows already include them.
          least: smaller numbers of interactions are padded to this number, so that one program serves all of them.
        """
        self.model, self._observe = _program(model, least)
        self._params = {name: leaf for name, leaf in params.items() if not name.endswith("_offset")}

    def run(self, states: States, past: History, events: Events, known: tuple[int, int]) -> Passage:
        """Refine rows with n > 0 interactions, in their order.

        Args:
          states: the rows before the interactions, NumPy arrays [U, E] and [I, E]; they are not changed.
          past: the counters before the interactions.
          events: the interactions, whose users and items are numbered like the rows.
          known: users and items from these numbers on are new: they get the learned initial state instead of their row.
        """
        options = self.model.options
        before, after = counters.advance(events, past, options.bias)
        plan = window.plan(
            dataclasses.replace(events, item_vectors={}),
            before,
            counters.tables(after, options.bias),
            count=-(-len(events) // OBSERVED),
            packing=options.packing,
            known_users=known[0],
            known_items=known[1],
        )
        rows = States(*(jnp.asarray(_rounded(np.asarray(side), options.packing.least)) for side in states))
        users, items = [], []
        with progress_bar("replaying", len(events), "interactions") as bar:
            for each, n in zip(plan.windows, np.diff(plan.begins), strict=True):
                rows, user, item = self._observe(self._params, rows, each)
                users.append(np.asarray(user)[:n])
                items.append(np.asarray(item)[:n])
                bar.update(int(n))
        ended = (np.asarray(side)[: len(begun)] for side, begun in zip(rows, states, strict=True))
        return Passage(States(*ended), after, np.concatenate(users), np.concatenate(items))  # pyright: ignore[reportArgumentType] (NumPy arrays)


class Replay:
    """The states and counters of all users and items, which `advance` moves forward."""

    def __init__(self, model: DReX, params: Params, states: States, past: History):
        """Start from the rows and counters of a run at some time.

        Args:
          model: the model of the run.
          params: its parameters.
          states: all rows at that time, [U, E] and [I, E].
          past: the counters of all users and items at that time.
        """
        self._continuation = Continuation(model, params)  # new users and items have no offset
        self._user, self._item = (_Table(**columns) for columns in _columns(states, past))

    def restarted(self, states: States, past: History) -> Replay:
        """Return a replay from another time that uses the same compiled programs."""
        other = copy.copy(self)
        other._user, other._item = (_Table(**columns) for columns in _columns(states, past))
        return other

    def part(self, users: np.ndarray, items: np.ndarray) -> Replay:
        """Return a separate replay of only these users and items, numbered by their positions."""
        other = copy.copy(self)
        other._user, other._item = _Table(**self._user.take(users)), _Table(**self._item.take(items))
        return other

    @property
    def states(self) -> States:
        """All current rows, as NumPy arrays that the next `advance` changes."""
        return States(self._user["rows"], self._item["rows"])  # pyright: ignore[reportArgumentType] (NumPy arrays)

    def advance(self, events: Events) -> None:
        """Refine the states with n interactions, in their order; none may be earlier than its user's or item's last.

        Args:
          events: the interactions, numbered like the rows; new users (or items) are numbered from U (or I) on, by first
            appearance.
        """
        if not len(events):
            return
        sides = []
        for table, numbers in ((self._user, events.user), (self._item, events.item)):
            touched, local = np.unique(numbers, return_inverse=True)
            known = int(np.searchsorted(touched, table.size))
            table.grow(int(touched[-1]) + 1)
            sides.append((touched, local.astype(np.int32), known, table.take(touched)))
        (users, user, known_users, of_users), (items, item, known_items, of_items) = sides
        stretch = dataclasses.replace(events, user=user, item=item, num_users=len(users), num_items=len(items))
        past = History(
            of_users["count"],
            of_items["count"],
            of_users["last"],
            of_items["last"],
            BiasState(
                of_users["rating_sum"], of_users["rating_count"], of_items["rating_sum"], of_items["rating_count"]
            ),
        )
        rows: Any = of_users["rows"], of_items["rows"]
        moved = self._continuation.run(States(*rows), past, stretch, (known_users, known_items))
        of_users, of_items = _columns(moved.states, moved.past)
        self._user.put(users, **of_users)
        self._item.put(items, **of_items)


@functools.lru_cache(maxsize=16)
def _program(model: DReX, least: int) -> tuple[DReX, Callable[..., Any]]:
    """Return DReX without offsets (states include them, new ones have none), and its compiled replay of a window."""
    options = model.options
    network = dataclasses.replace(options.network, offsets=False)
    packing = window.Packing(width=WIDTH, rounded=True, least=least)
    own = DReX(dataclasses.replace(options, network=network, packing=packing))
    return own, jax.jit(functools.partial(own.observe_window, ALONE), donate_argnums=1)


def _columns(states: States, past: History) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the columns of the tables of users and of items, named as in `EMPTY`."""
    sums = past.bias
    users = states.user, past.user_count, past.user_last, sums.user_sum, sums.user_count
    items = states.item, past.item_count, past.item_last, sums.item_sum, sums.item_count
    of_users, of_items = (dict(zip(EMPTY, map(np.asarray, side), strict=True)) for side in (users, items))
    return of_users, of_items


def _rounded(rows: np.ndarray, least: int) -> np.ndarray:
    """Pad rows [m, E] to a power of two that is at least `least`."""
    return np.pad(rows, ((0, power_of_two(max(len(rows), least)) - len(rows)), (0, 0)))

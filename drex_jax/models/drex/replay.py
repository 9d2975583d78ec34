"""Goes on where a run has ended: new interactions refine the states that they touch, exactly as training would.

All work is done on tables of the users and items of the new interactions alone, so that a call costs what they cost,
however many others there are.

Letters: n new interactions, U users, I items, E row size.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from drex_jax.biases import BiasState
from drex_jax.data.modalities import Events
from drex_jax.models.axis import ALONE
from drex_jax.models.drex import history, window
from drex_jax.models.drex.history import History
from drex_jax.models.drex.model import OBSERVED
from drex_jax.models.drex.refiner import Refiner
from drex_jax.models.protocol import Carry

WIDTH = 16  # lanes a step, at the most
EMPTY = {"rows": 0.0, "count": 0, "last": np.nan, "rating_sum": 0.0, "rating_count": 0}  # of somebody never met


class _Table:
    """Columns of one side that grow; room is doubled, so that growing by one costs little on average."""

    def __init__(self, **columns: np.ndarray):
        self._columns = {name: np.array(values) for name, values in columns.items()}
        self.size = len(columns["count"])

    def grow(self, size: int) -> None:
        room = len(self._columns["count"])
        if size > room:
            more = max(size, 2 * room) - room
            for name, values in self._columns.items():
                padding = [(0, more)] + [(0, 0)] * (values.ndim - 1)
                self._columns[name] = np.pad(values, padding, constant_values=EMPTY[name])
        self.size = max(self.size, size)

    def take(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        return {name: values[numbers] for name, values in self._columns.items()}

    def put(self, numbers: np.ndarray, **columns: np.ndarray) -> None:
        for name, values in columns.items():
            self._columns[name][numbers] = values

    def __getitem__(self, name: str) -> np.ndarray:
        return self._columns[name][: self.size]


class Replay:
    """The states and counters of everyone, which `advance` moves forward."""

    def __init__(self, refiner: Refiner, params: dict[str, Any], carry: Carry, past: History):
        """Starts from a moment of a run.

        Args:
          refiner: of the run's model.
          params: its parameters.
          carry: everyone's rows at the moment, [U, E] and [I, E].
          past: everyone's counters.
        """
        self._refiner, self._observe = _program(refiner)
        self._params = {name: leaf for name, leaf in params.items() if not name.endswith("_offset")}
        self._user, self._item = (_Table(**columns) for columns in _columns(carry, past))

    def restarted(self, carry: Carry, past: History) -> Replay:
        """The same from another moment, by the same programs."""
        other = copy.copy(self)
        other._user, other._item = (_Table(**columns) for columns in _columns(carry, past))
        return other

    def part(self, users: np.ndarray, items: np.ndarray) -> Replay:
        """The same of these users and items alone, numbered by their places; what it learns stays its own."""
        other = copy.copy(self)
        other._user, other._item = _Table(**self._user.take(users)), _Table(**self._item.take(items))
        return other

    @property
    def carry(self) -> Carry:
        """Everyone's rows now, as NumPy arrays that the next `advance` changes."""
        return Carry(self._user["rows"], self._item["rows"])  # pyright: ignore[reportArgumentType] (NumPy's serve)

    def advance(self, events: Events) -> None:
        """Refines the states with n interactions, in their order; none may be earlier than its user's or item's last.

        Args:
          events: numbered as the rows are; who is new has a number from U (or I) on, in the order of appearance.
        """
        if not len(events):
            return
        bias = self._refiner.options.bias
        sides = []
        for table, numbers in ((self._user, events.user), (self._item, events.item)):
            touched, local = np.unique(numbers, return_inverse=True)
            known = int(np.searchsorted(touched, table.size))
            table.grow(int(touched[-1]) + 1)
            sides.append((touched, local.astype(np.int32), known, table.take(touched)))
        (users, user, known_users, of_users), (items, item, known_items, of_items) = sides
        stretch = dataclasses.replace(
            events, user=user, item=item, num_users=len(users), num_items=len(items), item_vectors={}
        )
        past = History(
            of_users["count"],
            of_items["count"],
            of_users["last"],
            of_items["last"],
            BiasState(
                of_users["rating_sum"], of_users["rating_count"], of_items["rating_sum"], of_items["rating_count"]
            ),
        )
        before, after = history.advance(stretch, past, bias)
        plan = window.plan(
            stretch,
            before,
            history.tables(after, bias),
            count=-(-len(events) // OBSERVED),
            packing=self._refiner.options.packing,
            known_users=known_users,
            known_items=known_items,
        )
        carry = Carry(*(jnp.asarray(_rounded(of["rows"])) for of in (of_users, of_items)))
        for each in plan.windows:
            carry, _, _ = self._observe(self._params, carry, each)
        of_users, of_items = _columns(Carry(carry.user[: len(users)], carry.item[: len(items)]), after)
        self._user.put(users, **of_users)
        self._item.put(items, **of_items)


@functools.lru_cache(maxsize=16)
def _program(refiner: Refiner) -> tuple[Refiner, Callable[..., Any]]:
    """The equations of those who have no offset (who is new), or have it in their state, and a window of them."""
    options = refiner.options
    network = dataclasses.replace(options.network, offsets=False)
    packing = window.Packing(width=WIDTH, rounded=True)
    own = Refiner(dataclasses.replace(options, network=network, packing=packing))
    return own, jax.jit(functools.partial(own.observe_window, ALONE), donate_argnums=1)


def _columns(carry: Carry, past: History) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What the tables of users and of items hold, by the names of `EMPTY`."""
    sums = past.bias
    users = carry.user, past.user_count, past.user_last, sums.user_sum, sums.user_count
    items = carry.item, past.item_count, past.item_last, sums.item_sum, sums.item_count
    of_users, of_items = (dict(zip(EMPTY, map(np.asarray, side), strict=True)) for side in (users, items))
    return of_users, of_items


def _rounded(rows: np.ndarray) -> np.ndarray:
    """The rows [m, E] with more below them, so that there is a power of two of them."""
    return np.pad(rows, ((0, window.power_of_two(len(rows)) - len(rows)), (0, 0)))

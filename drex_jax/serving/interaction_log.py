"""All that a run has met: the table that it was made of, what came since, and the rules for what may follow."""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from drex_jax.data.assemble import by_first_appearance
from drex_jax.data.events import REVIEW
from drex_jax.data.interactions import Interactions
from drex_jax.data.strings import Strings
from drex_jax.serving.rows import Refusal, Row, rows_of


class Ids:
    """The ids of one side, and those that came since: number n is the id at place n."""

    def __init__(self, ids: Strings):
        self._start, self._since = ids, []
        self._end: int | None = None  # of those that are frozen: how many there are

    def frozen(self) -> Ids:
        """These ids as they are now, whatever is added later."""
        self._numbers  # noqa: B018 (made here, they are made once)
        other = copy.copy(self)
        other._end = len(self)
        return other

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self._start)}

    def __len__(self) -> int:
        return len(self._start) + len(self._since) if self._end is None else self._end

    def name(self, number: int) -> str:
        """The id at a place."""
        begun = len(self._start)
        return self._start[number] if number < begun else self._since[number - begun]

    def number(self, name: str | int) -> int:
        """Of an id; -1: there is none."""
        number = self._numbers.get(str(name), -1)
        return number if number < len(self) else -1

    def add(self, name: str) -> int:
        """The number of an id, which it is given now if it has none."""
        number = self.number(name)
        if number < 0:
            number = self._numbers[name] = len(self)
            self._since.append(name)
        return number


class _Column:
    """int32 that grows; room is doubled, so that growing by one costs little on average."""

    def __init__(self, values: np.ndarray):
        self._values, self._size = np.array(values, np.int32), len(values)

    def append(self, value: int) -> None:
        """One more."""
        if self._size == len(self._values):
            self._values = np.pad(self._values, (0, max(16, self._size)))
        self._values[self._size] = value
        self._size += 1

    @property
    def values(self) -> np.ndarray:
        """All so far, int32 [n]."""
        return self._values[: self._size]


class _Index:
    """Which rows are whose: those known at the start sorted by owner, those that came since by themselves."""

    def __init__(self, owners: np.ndarray):
        self._order = np.argsort(owners, kind="stable")
        self._begin = np.concatenate([[0], np.bincount(owners).cumsum()]).astype(np.int64)
        self._since: dict[int, list[int]] = {}

    def add(self, owner: int, row: int) -> None:
        self._since.setdefault(owner, []).append(row)

    def of(self, owner: int) -> np.ndarray:
        """int64: the rows of an owner, ascending; -1 has none."""
        begun = 0 <= owner < len(self._begin) - 1
        rows = self._order[self._begin[owner] : self._begin[owner + 1]] if begun else self._order[:0]
        return np.append(rows, self._since[owner]) if owner in self._since else rows


class InteractionLog:
    """Rows 0, 1, ... in the order in which they were learned from. Letters: n rows, U users, I items.

    Attributes:
      base: the table that the run was made of, in the order of learning.
      num_train: how many of its rows are train.
      users, items: the ids.
      since: how many rows came after `base`.
    """

    def __init__(self, base: Interactions, num_train: int, saved: Interactions | None = None):
        """`saved`: what came since, in its order; a table with numbers of its own."""
        self.base, self.num_train = base, num_train
        self._saved = base.take(np.zeros(0, np.int64)) if saved is None else saved
        self.users, self.items = Ids(base.user_ids), Ids(base.item_ids)
        user, item = base.user, base.item
        if saved is not None:
            users = np.array([self.users.add(name) for name in saved.user_ids], np.int32)
            items = np.array([self.items.add(name) for name in saved.item_ids], np.int32)
            user, item = np.append(user, users[saved.user]), np.append(item, items[saved.item])
        self._user, self._item = _Column(user), _Column(item)
        self._rows: list[Row] = []  # after `saved`
        self._newest: list[dict[int, float]] = [{}, {}]  # by number, of those in `_rows`: the last moment
        self._marks: dict[int, tuple[float, list[Any]]] = {}  # by user: its last moment, and what happened at it

    def __len__(self) -> int:
        return len(self._user.values)

    @property
    def since(self) -> int:
        """How many rows came after `base`."""
        return len(self) - len(self.base)

    @property
    def user(self) -> np.ndarray:
        """int32 [n]."""
        return self._user.values

    @property
    def item(self) -> np.ndarray:
        """int32 [n]."""
        return self._item.values

    @functools.cached_property
    def _by_user(self) -> _Index:
        return _Index(self.user)

    @functools.cached_property
    def _by_item(self) -> _Index:
        return _Index(self.item)

    @property
    def last_moment(self) -> float:
        """The latest timestamp, in seconds; 0 where there are no rows."""
        tables = [table.timestamp.max(initial=-math.inf) for table in (self.base, self._saved)]
        latest = max(*tables, *self._newest[0].values())
        return latest if len(self) else 0.0

    def rows_of_user(self, user: int) -> np.ndarray:
        """int64, ascending: the rows of a user, by number; -1 has none."""
        return self._by_user.of(user)

    def rows_of_item(self, item: int) -> np.ndarray:
        """int64, ascending: the rows of an item, by number; -1 has none."""
        return self._by_item.of(item)

    def row(self, number: int) -> Row:
        """One row with its text and vectors."""
        for table in (self.base, self._saved):
            if number < len(table):
                return _row(next(rows_of(table.take(np.array([number])))))
            number -= len(table)
        return self._rows[number]

    def table(self) -> Interactions:
        """All rows as one table, numbered as here; a copy where anything came after `base`."""
        if not self.since:
            return self.base
        base, since = self.base, self.since_table()
        vectors = {name: np.concatenate([base.vectors[name], since.vectors[name]]) for name in base.vectors}
        return Interactions(
            name=base.name,
            user_ids=Strings.of(map(self.users.name, range(len(self.users)))),
            item_ids=Strings.of(map(self.items.name, range(len(self.items)))),
            user=self.user.copy(),
            item=self.item.copy(),
            timestamp=np.append(base.timestamp, since.timestamp),
            rating=np.append(base.rating, since.rating),
            text=Strings.concatenate([base.text, since.text]),
            vectors=vectors,
            rating_range=base.rating_range,
        )

    def since_table(self) -> Interactions:
        """What came after `base`, in its order, as a table with numbers of its own."""
        saved, rows = self._saved, self._rows
        vectors = {}
        for name, values in self.base.vectors.items():
            missing = np.full(values.shape[1], np.nan, np.float32)
            new = [np.asarray(row.vectors.get(name, missing), np.float32)[None] for row in rows]
            vectors[name] = np.concatenate([saved.vectors[name], *new])
        sides = []
        for numbers, ids in ((self.user, self.users), (self.item, self.items)):
            own, first = by_first_appearance(numbers[len(self.base) :], len(ids))
            sides.append((own, Strings.of(ids.name(number) for number in first.tolist())))
        (user, user_ids), (item, item_ids) = sides
        return Interactions(
            name=self.base.name,
            user_ids=user_ids,
            item_ids=item_ids,
            user=user,
            item=item,
            timestamp=np.append(saved.timestamp, [row.timestamp for row in rows]),
            rating=np.append(saved.rating, np.array([row.rating for row in rows], np.float32)),
            text=Strings.concatenate([saved.text, Strings.of(row.text for row in rows)]),
            vectors=vectors,
            rating_range=self.base.rating_range,
        )

    def before(self, moment: float) -> InteractionLog:
        """The journal as it stood just before a moment, in seconds; users and items keep their numbers."""
        since = self.since_table()
        parts = [np.flatnonzero(table.timestamp < moment) for table in (self.base, since)]
        then = InteractionLog(self.base.take(parts[0]), int((parts[0] < self.num_train).sum()))
        then.users, then.items = self.users.frozen(), self.items.frozen()
        then._saved = since.take(parts[1])
        rows = np.concatenate([parts[0], len(self.base) + parts[1]])
        then._user, then._item = _Column(self.user[rows]), _Column(self.item[rows])
        return then

    def join(self, rows: Sequence[tuple[int, Row]]) -> tuple[list[Row], list[tuple[int, int]], list[Refusal]]:
        """Takes in rows that are right, each with its place, as far as they may follow.

        A row is refused where it is earlier than the last of its user or of its item, or was there already.

        Returns:
          The rows taken in; their (user, item) by number; the others.
        """
        kept, numbers, refused = [], [], []
        for place, row in rows:
            user, item = self.users.number(row.user), self.items.number(row.item)
            last = [self._last(0, user), self._last(1, item)]
            if row.timestamp < max(last):
                side = "user" if row.timestamp < last[0] else "item"
                reason = f"timestamp {row.timestamp:.15g} is earlier than {max(last):.15g}, the last of its {side}"
                refused.append(Refusal(place, reason))
                continue
            mark, there = _mark(row), self._at(row, user, last[0])
            if mark in there:
                refused.append(Refusal(place, "the very same interaction was there already"))
                continue
            user, item = self.users.add(row.user), self.items.add(row.item)
            self._newest[0][user] = self._newest[1][item] = row.timestamp
            self._marks[user] = row.timestamp, [*there, mark]
            self._append(row, user, item)
            kept.append(row)
            numbers.append((user, item))
        return kept, numbers, refused

    def _append(self, row: Row, user: int, item: int) -> None:
        by_user, by_item, place = self._by_user, self._by_item, len(self)
        self._user.append(user)
        self._item.append(item)
        by_user.add(user, place)
        by_item.add(item, place)
        self._rows.append(row)

    @functools.cached_property
    def _last_at_start(self) -> tuple[np.ndarray, np.ndarray]:
        """When each user and item of the tables was last met; NaN: never."""
        tables = self.base, self._saved
        timestamp = np.concatenate([table.timestamp for table in tables])
        sides = []
        for numbers, count in ((self.user, len(self.users)), (self.item, len(self.items))):
            last = np.full(count, np.nan)
            last[numbers[: len(timestamp)]] = timestamp  # of repeated numbers the last wins
            sides.append(last)
        return sides[0], sides[1]

    def _last(self, side: int, number: int) -> float:
        """When a user (side 0) or item was last met, in seconds; -inf: never."""
        if number in self._newest[side]:
            return self._newest[side][number]
        last = self._last_at_start[side]
        met = 0 <= number < len(last) and not math.isnan(last[number])
        return float(last[number]) if met else -math.inf

    def _at(self, row: Row, user: int, last: float) -> list[Any]:
        """What the row's user did at the row's moment, which is not before its last."""
        if row.timestamp > last:
            return []
        if user in self._marks:
            return self._marks[user][1]
        at_once = itertools.takewhile(
            lambda each: each.timestamp == last, map(self.row, reversed(self.rows_of_user(user).tolist()))
        )
        return [_mark(each) for each in at_once]


def _row(mapping: dict[str, Any]) -> Row:
    """Of a table's row, which has been checked long ago."""
    columns = {name: mapping.pop(name) for name in ("user", "item", "timestamp", "rating", "text")}
    return Row(**columns, vectors=mapping)


def _mark(row: Row) -> tuple[Any, ...]:
    """What makes two interactions of a user at one moment the same; what is made of the text is nothing of its own."""
    rating = None if math.isnan(row.rating) else float(np.float32(row.rating))
    own = sorted((name, values) for name, values in row.vectors.items() if name != REVIEW)
    vectors = tuple((name, np.asarray(values, np.float32).tobytes()) for name, values in own)
    return row.item, rating, row.text, vectors

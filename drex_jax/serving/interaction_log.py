"""The log of all interactions of a run: its data, what came since, and the rules for what may follow."""

from __future__ import annotations

import bisect
import copy
import functools
import itertools
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from drex_jax.common.growing import GrowingArray
from drex_jax.common.side import Side
from drex_jax.data.events import REVIEW
from drex_jax.data.interactions import Interactions, by_first_appearance
from drex_jax.data.readers.chunk import Chunk
from drex_jax.data.strings import Strings
from drex_jax.serving.rows import CheckedRows, Refusal


class Interaction(NamedTuple):
    """One interaction of a log.

    Attributes:
      user, item: ids.
      timestamp: seconds since 1970.
      rating: NaN where missing.
      text: empty where missing.
      vectors: vector modalities by name, float32 [width]; missing ones are left out.
    """

    user: str
    item: str
    timestamp: float
    rating: float
    text: str
    vectors: Mapping[str, np.ndarray]


class Appended(NamedTuple):
    """What a log has done with new interactions.

    Attributes:
      rows: the n interactions that were appended, in order.
      user, item: int32 [n], their numbers in the log.
      refused: the other rows.
    """

    rows: Chunk
    user: np.ndarray
    item: np.ndarray
    refused: list[Refusal]


class Ids:
    """The ids of users, or of items, to which new ones can be added; the number of an id is its position."""

    def __init__(self, ids: Strings):
        self._start, self._added = ids, list[bytes]()
        self._end: int | None = None  # of a frozen copy: its length

    def frozen(self) -> Ids:
        """Return a view of the ids as they are now, which later ids do not change."""
        other = copy.copy(self)
        other._end = len(self)
        return other

    @functools.cached_property
    def _numbers(self) -> dict[bytes, int]:
        data, offsets = self._start.data.tobytes(), self._start.offsets.tolist()
        return {data[begin:end]: number for number, (begin, end) in enumerate(itertools.pairwise(offsets))}

    def __len__(self) -> int:
        return len(self._start) + len(self._added) if self._end is None else self._end

    def name(self, number: int) -> str:
        """Return the id with a number."""
        begun = len(self._start)
        return self._start[number] if number < begun else self._added[number - begun].decode()

    def number(self, name: str | bytes) -> int:
        """Return the number of an id; -1 if it is unknown."""
        key = name if isinstance(name, bytes) else name.encode("utf-8", "surrogatepass")
        number = self._numbers.get(key, -1)
        return number if number < len(self) else -1

    def add(self, name: bytes) -> int:
        """Return the number of an id in UTF-8, which is appended if it is unknown."""
        number = self.number(name)
        if number < 0:
            number = self._numbers[name] = len(self)
            self._added.append(name)
        return number

    def strings(self) -> Strings:
        """Return all ids as a column."""
        return Strings.concatenate([self._start, Strings.of(self._added)]).part(0, len(self))


class _RowsByOwner:
    """The rows of each user (or item): those known at the start sorted by owner, later ones in lists."""

    def __init__(self, owners: np.ndarray):
        self._order = np.argsort(owners, kind="stable")
        self._begin = np.concatenate([[0], np.bincount(owners).cumsum()]).astype(np.int64)
        self._since: dict[int, list[int]] = {}

    def extend(self, owners: np.ndarray, begin: int) -> None:
        """Add the rows `begin`, `begin` + 1, ... of these owners."""
        for row, owner in enumerate(owners.tolist(), begin):
            self._since.setdefault(owner, []).append(row)

    def of(self, owner: int) -> np.ndarray:
        """Return the rows of an owner, int64, ascending; -1 has none."""
        begun = 0 <= owner < len(self._begin) - 1
        rows = self._order[self._begin[owner] : self._begin[owner + 1]] if begun else self._order[:0]
        return np.append(rows, self._since[owner]) if owner in self._since else rows


class InteractionLog:
    """All interactions of a run, numbered 0, 1, ... in the order in which the model has learned from them.

    Attributes:
      base: the data that the run was trained and evaluated on, in the order of learning.
      num_train: how many of the rows of `base` are train.
      users, items: the ids.
    """

    def __init__(self, base: Interactions, num_train: int, saved: Interactions | None = None):
        """Make the log of a run; `saved` holds the rows after `base` in their order, with its own numbers of ids."""
        self.base, self.num_train = base, num_train
        self.users, self.items = Ids(base.user_ids), Ids(base.item_ids)
        self._user, self._item = GrowingArray(base.user), GrowingArray(base.item)
        self._parts, self._begins = [_without_ids(base)], [0]  # the other columns, and the first row of each part
        self._latest_since = -math.inf
        if saved is not None:
            users, items = (
                np.array([known.add(ids.bytes_at(number)) for number in range(len(ids))], np.int32)
                for known, ids in ((self.users, saved.user_ids), (self.items, saved.item_ids))
            )
            self._append(_without_ids(saved), users[saved.user], items[saved.item])

    def __len__(self) -> int:
        return len(self._user)

    @property
    def since(self) -> int:
        """The number of rows after `base`."""
        return len(self) - len(self.base)

    @property
    def user(self) -> np.ndarray:
        """The user of each row, int32 [n]."""
        return self._user.values

    @property
    def item(self) -> np.ndarray:
        """The item of each row, int32 [n]."""
        return self._item.values

    @property
    def last_moment(self) -> float:
        """The latest timestamp, in seconds since 1970; 0 if there are no rows."""
        return max(self._latest_in_base, self._latest_since) if len(self) else 0.0

    @functools.cached_property
    def _latest_in_base(self) -> float:
        return float(self.base.timestamp.max(initial=-math.inf))

    @functools.cached_property
    def _owned(self) -> dict[Side, _RowsByOwner]:
        return {Side.USER: _RowsByOwner(self.user), Side.ITEM: _RowsByOwner(self.item)}

    def rows_of_user(self, user: int) -> np.ndarray:
        """Return the rows of a user by number, int64, ascending; -1 has none."""
        return self._owned[Side.USER].of(user)

    def rows_of_item(self, item: int) -> np.ndarray:
        """Return the rows of an item by number, int64, ascending; -1 has none."""
        return self._owned[Side.ITEM].of(item)

    def row(self, number: int) -> Interaction:
        """Return one row, with its text and vectors."""
        part, place = self._place(number)
        vectors = {name: values[place] for name, values in part.vectors.items()}
        return Interaction(
            user=self.users.name(int(self.user[number])),
            item=self.items.name(int(self.item[number])),
            timestamp=float(part.timestamp[place]),
            rating=float(part.rating[place]),
            text=part.text[place],
            vectors={name: vector for name, vector in vectors.items() if not np.isnan(vector).any()},
        )

    def _place(self, number: int) -> tuple[Chunk, int]:
        """Return the part that holds a row, and the row's place in it."""
        part = bisect.bisect_right(self._begins, number) - 1
        return self._parts[part], number - self._begins[part]

    def table(self) -> Interactions:
        """Return all rows as one table with the numbers of this log; `base` itself if nothing came after it."""
        if not self.since:
            return self.base
        base, since = self.base, self.since_table()
        return Interactions(
            name=base.name,
            user_ids=self.users.strings(),
            item_ids=self.items.strings(),
            user=self.user.copy(),
            item=self.item.copy(),
            timestamp=np.append(base.timestamp, since.timestamp),
            rating=np.append(base.rating, since.rating),
            text=Strings.concatenate([base.text, since.text]),
            vectors={name: np.concatenate([values, since.vectors[name]]) for name, values in base.vectors.items()},
            rating_range=base.rating_range,
        )

    def since_table(self) -> Interactions:
        """Return the rows after `base`, in their order, as a table with its own numbers of ids."""
        base, parts = self.base, self._parts[1:]
        user, users = by_first_appearance(self.user[len(base) :], len(self.users))
        item, items = by_first_appearance(self.item[len(base) :], len(self.items))
        return Interactions(
            name=base.name,
            user_ids=Strings.of(self.users.name(number) for number in users.tolist()),
            item_ids=Strings.of(self.items.name(number) for number in items.tolist()),
            user=user,
            item=item,
            timestamp=np.concatenate([base.timestamp[:0], *(part.timestamp for part in parts)]),
            rating=np.concatenate([base.rating[:0], *(part.rating for part in parts)]),
            text=Strings.concatenate([part.text for part in parts]),
            vectors={
                name: np.concatenate([values[:0], *(part.vector(name, values.shape[1]) for part in parts)])
                for name, values in base.vectors.items()
            },
            rating_range=base.rating_range,
        )

    def before(self, moment: float) -> InteractionLog:
        """Return the log of the rows earlier than a moment in seconds; users and items keep their numbers."""
        since = self.since_table()
        in_base, after = (np.flatnonzero(table.timestamp < moment) for table in (self.base, since))
        then = InteractionLog(self.base.take(in_base), int((in_base < self.num_train).sum()))
        then.users, then.items = self.users.frozen(), self.items.frozen()
        rows = len(self.base) + after
        then._append(_without_ids(since.take(after)), self.user[rows], self.item[rows])
        return then

    def append_valid(self, checked: CheckedRows) -> Appended:
        """Append new interactions in their order, except those that may not follow.

        A row is refused if it is earlier than the last row of its user or of its item, or if the log has the same
        interaction already.
        """
        rows, kept, users, items, refused = checked.rows, list[int](), list[int](), list[int](), list[Refusal]()
        newest: dict[Side, dict[int, float]] = {side: {} for side in Side}  # last moments that these rows change
        repeats = _Repeats(self)
        columns = zip(_bytes_of(rows.user), _bytes_of(rows.item), rows.timestamp.tolist(), strict=True)
        for place, (user_id, item_id, time) in enumerate(columns):
            user, item = self.users.number(user_id), self.items.number(item_id)
            last_of_user = newest[Side.USER].get(user, self._last_moment(Side.USER, user))
            last_of_item = newest[Side.ITEM].get(item, self._last_moment(Side.ITEM, item))
            if time < (last := max(last_of_user, last_of_item)):
                side = Side.USER if time < last_of_user else Side.ITEM
                reason = f"timestamp {time:.15g} is earlier than {last:.15g}, the last of its {side}"
                refused.append(Refusal(int(checked.positions[place]), reason))
            elif time == last_of_user and repeats.has(user, item, rows, place):
                reason = "the very same interaction was there already"
                refused.append(Refusal(int(checked.positions[place]), reason))
            else:
                user, item = self.users.add(user_id), self.items.add(item_id)
                newest[Side.USER][user] = newest[Side.ITEM][item] = time
                repeats.add(user, item, rows, place)
                kept.append(place)
                users.append(user)
                items.append(item)
        if len(kept) < len(rows):
            rows = rows.take(np.array(kept, np.int64))
        new = Appended(rows, np.array(users, np.int32), np.array(items, np.int32), refused)
        if kept:
            self._append(_without_ids(new.rows), new.user, new.item)
        return new

    def _append(self, part: Chunk, user: np.ndarray, item: np.ndarray) -> None:
        begin, numbers = len(self), {Side.USER: user, Side.ITEM: item}
        self._begins.append(begin)
        self._parts.append(part)
        self._user.extend(user)
        self._item.extend(item)
        self._latest_since = float(part.timestamp.max(initial=self._latest_since))
        for side, ids in ((Side.USER, self.users), (Side.ITEM, self.items)):
            if "_owned" in self.__dict__:  # made already
                self._owned[side].extend(numbers[side], begin)
            if "_last" in self.__dict__:
                self._last[side].resize(len(ids))
                self._last[side].values[numbers[side]] = part.timestamp

    @functools.cached_property
    def _last(self) -> dict[Side, GrowingArray]:
        """The timestamp of the last row of each user (or item), float64; -inf if there is none."""
        timestamp = np.concatenate([part.timestamp for part in self._parts])
        moments = dict[Side, GrowingArray]()
        for side, numbers, ids in ((Side.USER, self.user, self.users), (Side.ITEM, self.item, self.items)):
            last = np.full(len(ids), -math.inf)
            last[numbers] = timestamp  # the last of several rows is written last
            moments[side] = GrowingArray(last, fill=-math.inf)
        return moments

    def _last_moment(self, side: Side, number: int) -> float:
        last = self._last[side]
        return float(last.values[number]) if 0 <= number < len(last) else -math.inf

    def last_contents(self, user: int) -> tuple[float, set[_Content]]:
        """Return the timestamp of the last row of a user, and the contents of all the user's rows at it."""
        last, contents = self._last_moment(Side.USER, user), set[_Content]()
        for row in reversed(self.rows_of_user(user).tolist()):
            part, place = self._place(row)
            if part.timestamp[place] != last:
                break
            contents.add(_content(int(self.item[row]), part, place))
        return last, contents


_Content = tuple[int, float | None, bytes, tuple[tuple[str, bytes], ...]]  # item, rating, text, vectors


class _Repeats:
    """Finds new rows that repeat an interaction of the same user at the same moment, in the log or among them."""

    def __init__(self, log: InteractionLog):
        self._log = log
        self._last: dict[int, tuple[float, set[_Content]]] = {}  # by user: the last moment, and its interactions

    def has(self, user: int, item: int, rows: Chunk, place: int) -> bool:
        """True if a row, which is at the last moment of its user, was there already."""
        if user not in self._last:
            self._last[user] = self._log.last_contents(user)
        return _content(item, rows, place) in self._last[user][1]

    def add(self, user: int, item: int, rows: Chunk, place: int) -> None:
        """Take note of a row that is not earlier than the last moment of its user."""
        time = float(rows.timestamp[place])
        last, contents = self._last.get(user, (-math.inf, set[_Content]()))
        if time > last:
            self._last[user] = time, (contents := set[_Content]())
        contents.add(_content(item, rows, place))


def _content(item: int, rows: Chunk, place: int) -> _Content:
    """Return what tells two interactions of a user at one moment apart; a vector of the text adds nothing to it."""
    rating = float(rows.rating[place])
    present = ((name, rows.vectors[name][place]) for name in sorted(rows.vectors) if name != REVIEW)
    vectors = tuple((name, vector.tobytes()) for name, vector in present if not np.isnan(vector).any())
    return item, None if math.isnan(rating) else rating, rows.text.bytes_at(place), vectors


def _without_ids(rows: Chunk | Interactions) -> Chunk:
    """Return the other columns of some rows, not copied."""
    nothing = Strings.empty(0)
    return Chunk(nothing, nothing, rows.timestamp, rows.rating, rows.text, rows.vectors)


def _bytes_of(column: Strings) -> list[bytes]:
    return [column.bytes_at(row) for row in range(len(column))]

"""A DReX run that goes on learning in memory: rows in order become events, events refine states."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from drex_jax.config import Config
from drex_jax.data import modalities
from drex_jax.data.interactions import Interactions
from drex_jax.data.modalities import Events
from drex_jax.data.strings import Strings
from drex_jax.data.vocabulary import Vocabulary
from drex_jax.dataset import open_interactions, open_vocabulary
from drex_jax.incoming import Refusal, Row, rows_of
from drex_jax.models.drex import history
from drex_jax.models.drex.history import History
from drex_jax.models.drex.refiner import Refiner
from drex_jax.models.drex.replay import Replay
from drex_jax.models.protocol import Carry


class Numbers(Protocol):
    """The ids of one side."""

    def __len__(self) -> int: ...

    def number(self, name: str) -> int:
        """Of an id; -1: it has none."""
        ...

    def add(self, name: str) -> None:
        """Gives a new id the next number."""
        ...


class Live:
    """States of everyone, and what is needed to move them on. Letters: U users, I items, E row size."""

    def __init__(
        self, replay: Replay, interactions: Interactions, num_train: int, vocabulary: Vocabulary | None, max_tokens: int
    ):
        """Use `of`."""
        self._replay, self._interactions = replay, interactions
        self._vocabulary, self._max_tokens = vocabulary, max_tokens
        self._scales = {name: modalities.scale(v, num_train) for name, v in interactions.vectors.items()}
        self._newest: list[dict[str, float]] = [{}, {}]  # of users and items met since the start: the last moment
        self._marks: dict[str, tuple[float, list[Any]]] = {}  # by user: its last moment, and what happened at it

    @classmethod
    def of(cls, refiner: Refiner, params: Any, carry: Carry, settings: Config, folder: pathlib.Path) -> Live:
        """The run in `folder` as it stands: `carry` has everyone's rows after all its interactions."""
        interactions, parts = open_interactions(settings, folder)
        events = modalities.events(interactions, (len(parts.train), len(parts.validation), len(parts.test)), None)
        start = History.start(events.num_users, events.num_items)
        _, past = history.advance(events, start, refiner.options.bias)
        replay = Replay(refiner, params, carry, past)
        return cls(replay, interactions, len(parts.train), open_vocabulary(folder), settings.text.max_tokens)

    @property
    def carry(self) -> Carry:
        """Everyone's rows now: NumPy arrays [U, E] and [I, E] that the next `apply` changes."""
        return self._replay.carry

    def apply(
        self, rows: Sequence[tuple[int, Row]], users: Numbers, items: Numbers
    ) -> tuple[list[tuple[int, int]], list[Refusal]]:
        """Refines the states with rows that are right, each with its place; `users` and `items` get the new ids.

        Returns:
          (user, item), by number, of those that were applied; and those that come too late or were there already.
        """
        kept, refused = self._in_order(rows, users, items)
        numbers = []
        for row in kept:
            for known, name in ((users, row.user), (items, row.item)):
                if known.number(name) < 0:
                    known.add(name)
            numbers.append((users.number(row.user), items.number(row.item)))
        if kept:
            self._replay.advance(self._events(kept, numbers, len(users), len(items)))
        return numbers, refused

    def _in_order(
        self, rows: Sequence[tuple[int, Row]], users: Numbers, items: Numbers
    ) -> tuple[list[Row], list[Refusal]]:
        kept, refused = [], []
        for place, row in rows:
            last = [self._last(0, row.user, users), self._last(1, row.item, items)]
            if row.timestamp < max(last):
                side = "user" if row.timestamp < last[0] else "item"
                reason = f"timestamp {row.timestamp:.15g} is earlier than {max(last):.15g}, the last of its {side}"
                refused.append(Refusal(place, reason))
                continue
            mark, there = _mark(row), self._at(row, last[0], users)
            if mark in there:
                refused.append(Refusal(place, "the very same interaction was there already"))
                continue
            self._newest[0][row.user] = self._newest[1][row.item] = row.timestamp
            self._marks[row.user] = row.timestamp, [*there, mark]
            kept.append(row)
        return kept, refused

    def _last(self, side: int, name: str, known: Numbers) -> float:
        """When a user (side 0) or item was last met, in seconds; -inf: never."""
        if name in self._newest[side]:
            return self._newest[side][name]
        number, last = known.number(name), self._replay.last[side]
        met = 0 <= number < len(last) and not math.isnan(last[number])
        return float(last[number]) if met else -math.inf

    def _at(self, row: Row, last: float, users: Numbers) -> list[Any]:
        """What the row's user did at the row's moment, which is not before its last."""
        if row.timestamp > last:
            return []
        if row.user in self._marks:
            return self._marks[row.user][1]
        table = self._interactions
        same = np.flatnonzero((table.user == users.number(row.user)) & (table.timestamp == last))
        return [_mark(_row(each)) for each in rows_of(table.take(same))]

    def _events(
        self, rows: Sequence[Row], numbers: Sequence[tuple[int, int]], num_users: int, num_items: int
    ) -> Events:
        user, item = np.array(numbers, np.int32).T
        vectors = {}
        for name, (mean, factor) in self._scales.items():
            missing = np.full(len(mean), np.nan)
            raw = np.stack([row.vectors.get(name, missing) for row in rows])
            vectors[name] = ((raw - mean) * factor).astype(np.float32)
        texts = Strings.of(row.text for row in rows)
        return Events(
            user=np.ascontiguousarray(user),
            item=np.ascontiguousarray(item),
            timestamp=np.array([row.timestamp for row in rows]),
            rating=np.array([row.rating for row in rows], np.float32),
            tokens=None if self._vocabulary is None else self._vocabulary.encode(texts, self._max_tokens),
            vectors=vectors,
            num_users=num_users,
            num_items=num_items,
        )


def _row(mapping: dict[str, Any]) -> Row:
    """Of a table's row, which has been checked long ago."""
    columns = {name: mapping.pop(name) for name in ("user", "item", "timestamp", "rating", "text")}
    return Row(**columns, vectors=mapping)


def _mark(row: Row) -> tuple[Any, ...]:
    """What makes two interactions of a user at one moment the same."""
    rating = None if math.isnan(row.rating) else float(np.float32(row.rating))
    vectors = tuple((name, np.asarray(values, np.float32).tobytes()) for name, values in sorted(row.vectors.items()))
    return row.item, rating, row.text, vectors

"""The log of interactions against a plain one that keeps a list of rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drex_jax.common.side import Side
from drex_jax.data.interactions import Interactions
from drex_jax.data.strings import Strings
from drex_jax.serving.interaction_log import InteractionLog
from drex_jax.serving.rows import CheckedRows, RowSchema, check_mappings

MOODS: list[Any] = [None, [1.0, 2.0], [1.0, 3.0]]


def base(n: int = 4) -> Interactions:
    return Interactions(
        name="tiny",
        user_ids=Strings.of(["u0", "u1"]),
        item_ids=Strings.of(["i0", "i1", "i2"]),
        user=np.array([0, 1, 0, 1][:n], np.int32),
        item=np.array([0, 1, 2, 0][:n], np.int32),
        timestamp=np.array([0.0, 1.0, 2.0, 2.0][:n]),
        rating=np.array([1.0, math.nan, 2.0, 3.0][:n], np.float32),
        text=Strings.of(["", "one", "two", ""][:n]),
        vectors={"mood": np.array([[1, 2], [math.nan, math.nan], [1, 3], [1, 2]], np.float32)[:n]},
        rating_range=(1.0, 5.0),
    )


def checked(rows: list[dict[str, Any]]) -> CheckedRows:
    found = check_mappings(rows, RowSchema.of(base()))
    assert not found.refused
    return found


class PlainLog:
    """The rules for what may follow, row by row over a list."""

    def __init__(self, table: Interactions):
        log = InteractionLog(table, len(table))
        self.rows = [self._content(log.row(number)._asdict()) for number in range(len(table))]

    @staticmethod
    def _content(row: dict[str, Any]) -> dict[str, Any]:
        mood = row.get("vectors", {}).get("mood", row.get("mood"))
        rating = row.get("rating")
        return {
            "user": row["user"],
            "item": row["item"],
            "timestamp": float(row["timestamp"]),
            "rating": None if rating is None or math.isnan(rating) else rating,
            "text": row.get("text") or "",
            "mood": None if mood is None else tuple(map(float, mood)),
        }

    def append(self, row: dict[str, Any]) -> str:
        """The kind of refusal; empty where the row is applied."""
        row = self._content(row)
        for side in Side:
            last = [each["timestamp"] for each in self.rows if each[side] == row[side]][-1:]
            if last and row["timestamp"] < max(last):
                return "earlier"
        if row in self.rows:
            return "very same"
        self.rows.append(row)
        return ""


ROW = st.fixed_dictionaries(
    {
        "user": st.sampled_from(["u0", "u1", "u2", "u3"]),
        "item": st.sampled_from(["i0", "i1", "i2", "i3"]),
        "timestamp": st.sampled_from([1.0, 2.0, 3.0, 4.0]),
        "rating": st.sampled_from([None, 1.0, 2.0]),
        "text": st.sampled_from([None, "one"]),
        "mood": st.sampled_from(MOODS),
    }
)


@given(batches=st.lists(st.lists(ROW, max_size=12), max_size=4), saved=st.booleans())
@settings(max_examples=200, deadline=None)
def test_rows_follow_or_are_refused_as_in_a_plain_log(batches: list[list[dict[str, Any]]], saved: bool) -> None:
    log, plain = InteractionLog(base(), 3), PlainLog(base())
    for batch in batches:
        expected = [plain.append(row) for row in batch]
        new = log.append_valid(checked(batch))
        reasons = dict(new.refused)
        assert [next((kind for kind in ("earlier", "very same") if kind in reasons.get(row, "")), "")
                for row in range(len(batch))] == expected  # fmt: skip
        assert list(zip(new.rows.user, new.rows.item, strict=True)) == [
            (log.users.name(user), log.items.name(item)) for user, item in zip(new.user, new.item, strict=True)
        ]
        if saved:  # as if it had been saved and loaded
            log = InteractionLog(base(), 3, log.since_table())
    assert len(log) == len(plain.rows) == len(log.base) + log.since
    assert [PlainLog._content(log.row(number)._asdict()) for number in range(len(log))] == plain.rows
    assert log.last_moment == max(row["timestamp"] for row in plain.rows)
    for number in range(len(log.users)):
        mine = [row for row, each in enumerate(plain.rows) if each["user"] == log.users.name(number)]
        assert log.rows_of_user(number).tolist() == mine
    for number in range(len(log.items)):
        mine = [row for row, each in enumerate(plain.rows) if each["item"] == log.items.name(number)]
        assert log.rows_of_item(number).tolist() == mine


@given(rows=st.lists(ROW, max_size=20), moment=st.sampled_from([0.0, 2.0, 3.0, 9.0]))
@settings(max_examples=100, deadline=None)
def test_tables_and_earlier_logs_hold_the_same_rows(rows: list[dict[str, Any]], moment: float) -> None:
    log = InteractionLog(base(), 3)
    log.append_valid(checked(rows))
    everything = [log.row(number)._asdict() for number in range(len(log))]
    table, since = log.table(), log.since_table()
    whole = InteractionLog(base(), 3, since)
    assert (list(log.users.strings()), list(log.items.strings())) == (list(table.user_ids), list(table.item_ids))
    assert [list(map(str, ids)) for ids in (since.user_ids, since.item_ids)] == [
        list(dict.fromkeys(each[side] for each in everything[4:])) for side in Side
    ]
    then = log.before(moment)
    earlier = [each for each in everything if each["timestamp"] < moment]
    for found, expected in (
        ([whole.row(number)._asdict() for number in range(len(whole))], everything),
        ([InteractionLog(table, 3).row(number)._asdict() for number in range(len(table))], everything),
        ([then.row(number)._asdict() for number in range(len(then))], earlier),
    ):
        np.testing.assert_equal(found, expected)
    known = len(then.users)
    log.append_valid(checked([{"user": "later", "item": "later", "timestamp": 10.0}]))
    assert (then.users.number("later"), len(then.users)) == (-1, known)
    assert log.users.number("later") == known


def test_an_empty_log() -> None:
    log = InteractionLog(base(0), 0)
    assert (len(log), log.last_moment, log.since) == (0, 0.0, 0)
    assert log.users.number("u0") == 0
    new = log.append_valid(checked([{"user": "u9", "item": "i0", "timestamp": 1.0}]))
    assert (new.user.tolist(), new.item.tolist()) == ([2], [0])
    assert log.table().user.tolist() == [2]


@pytest.mark.parametrize("name", ["", "\ud800", "u0\0"])
def test_ids_that_nobody_has(name: str) -> None:
    assert InteractionLog(base(), 3).users.number(name) == -1

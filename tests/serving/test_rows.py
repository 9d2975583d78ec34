"""Rows of Python objects: what a table or a careless program gives for numbers, moments and missing values."""

from __future__ import annotations

import dataclasses
import datetime
import math
from typing import Any

import numpy as np
import pytest

from drex_jax.common.errors import UserError
from drex_jax.data.load import DataSettings, SyntheticSettings, load_interactions
from drex_jax.serving.rows import Expected, checked, require_whole

GOOD = {"user": "a", "item": "b", "timestamp": 5.0}
EXPECTED = Expected((1.0, 5.0), {"mood": 2})
HUGE = 10**400


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"rating": HUGE}, "rating 1000"),
        ({"timestamp": HUGE}, "timestamp 1000"),
        ({"timestamp": -(10**5000)}, "timestamp <a number of thousands of digits>"),
        ({"mood": [1, HUGE]}, "mood is no list of numbers"),
        ({"mood": [1, 1e300]}, "mood must be 2 finite numbers"),
        ({"user": 10**5000}, "user <a number of thousands of digits>; it must be"),
        ({"item": math.nan}, "item nan; it must be"),
        ({"timestamp": math.nan}, "no timestamp"),
        ({10**5000: 1}, "unknown key <a number"),
    ],
)
def test_what_overflows_is_refused_by_itself(wrong: dict[Any, Any], reason: str) -> None:
    right, refused = checked([GOOD, GOOD | wrong, GOOD], EXPECTED)
    assert [place for place, _ in right] == [0, 2]
    assert refused[0].reason.startswith(reason)
    assert len(refused[0].reason) < 200


def test_moments_may_be_datetimes() -> None:
    zone = datetime.timezone(datetime.timedelta(hours=2))
    for moment in (datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 1, 2, tzinfo=zone)):
        assert EXPECTED.check(GOOD | {"timestamp": moment}).timestamp == 1577836800.0


def test_nan_is_missing_as_tables_have_it() -> None:
    row = EXPECTED.check(GOOD | {"text": math.nan, "rating": np.float64("nan"), "mood": math.nan})
    assert (row.text, math.isnan(row.rating), dict(row.vectors)) == ("", True, {})


def test_a_table_that_is_not_whole() -> None:
    table, _ = load_interactions(DataSettings(synthetic=SyntheticSettings(interactions=30, users=5, items=4)))
    require_whole(table.take(np.arange(3, 9)))
    with pytest.raises(UserError, match="there are 5 of user, 30 of item"):
        require_whole(dataclasses.replace(table, user=table.user[:5]))
    with pytest.raises(UserError, match=r"item numbers are 9 to 12, and it has 4"):
        require_whole(dataclasses.replace(table, item=table.item + 9))

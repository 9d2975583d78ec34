"""New interactions and arguments: a row from Python and a row from a file keep the same rules."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import pathlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drex_jax.common.errors import UserError
from drex_jax.data.interactions import Interactions
from drex_jax.data.load import DataSettings, SyntheticSettings, load_interactions
from drex_jax.data.readers import table
from drex_jax.data.readers.chunk import Chunk
from drex_jax.data.readers.quarantine import Quarantine
from drex_jax.data.strings import Strings
from drex_jax.serving import rows
from drex_jax.serving.rows import RowSchema, check_mappings, check_table

GOOD = {"user": "a", "item": "b", "timestamp": 5.0}
SCHEMA = RowSchema((1.0, 5.0), {"mood": 2})
HUGE = 10**400
LONG = "x" * 5000
NO_RATINGS = "the run's data have no ratings, so a row may have none"


def reasons_of(row: dict[str, Any]) -> list[str]:
    return [refusal.reason for refusal in check_mappings([row], SCHEMA).refused]


def only(row: dict[str, Any]) -> Chunk:
    checked = check_mappings([row], SCHEMA)
    assert not checked.refused
    return checked.rows


def by_file(row: dict[str, Any], path: pathlib.Path) -> tuple[Chunk, list[str]]:
    """A row as the reader of tables has it, and the reasons why it is rejected."""
    path.write_text(json.dumps({"rating": None, "text": None, "mood": None} | row))
    columns = {name: name for name in ("user", "item", "timestamp", "rating", "text", "mood")}
    with Quarantine(in_memory=True) as quarantine:
        (chunk,) = table.read(path, columns, "", SCHEMA.rating_range, quarantine, SCHEMA.widths)
    return chunk, [each["reason"] for each in quarantine.listed or []]


def assert_equal(one: Chunk, other: Chunk) -> None:
    for name in ("user", "item", "text"):
        assert list(getattr(one, name)) == list(getattr(other, name))
    for name in ("timestamp", "rating"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(one.vector("mood", 2), other.vector("mood", 2))


VALUES: list[tuple[str, Any, str | None]] = [  # a column, a value, and why it is rejected
    ("user", "a", None),
    ("user", 7, None),
    ("user", -(10**18), None),
    ("user", " a ", None),
    ("user", "é" * 512, None),
    ("user", None, "no user"),
    ("user", "", "no user"),
    ("user", "  \u3000", "no user"),
    ("user", LONG, "user id above 1,024 bytes"),
    ("user", "é" * 513, "user id above 1,024 bytes"),
    ("user", "a\0b", "NUL byte in the user"),
    ("user", True, "user is neither a string nor an integer"),
    ("user", 1.0, "user is neither a string nor an integer"),
    ("user", ["a"], "user is neither a string nor an integer"),
    ("item", " ", "no item"),
    ("item", LONG, "item id above 1,024 bytes"),
    ("text", "good", None),
    ("text", None, None),
    ("text", "", None),
    ("text", " \n", None),
    ("text", 3, "text is not a string"),
    ("text", ["good"], "text is not a string"),
    ("text", "a\0b", "NUL byte in the text"),
    ("text", "é" * 600_000, "text above 1,000,000 bytes"),
    ("rating", 4, None),
    ("rating", 5.0000001, None),  # 5 in float32
    ("rating", "", None),
    ("rating", 0, "rating outside 1..5"),
    ("rating", 5.1, "rating outside 1..5"),
    ("rating", -1e300, "rating outside 1..5"),
    ("rating", True, "rating is not a number"),
    ("rating", "good", "rating is not a number"),
    ("timestamp", 0, None),
    ("timestamp", -1.5, None),
    ("timestamp", None, "no time"),
    ("timestamp", 1e12, "time outside 1900..2200"),
    ("timestamp", -1e300, "time outside 1900..2200"),
    ("timestamp", False, "time is not a number"),
    ("timestamp", [5], "time is not a number"),
    ("mood", [1, 2.5], None),
    ("mood", "[1, 2]", None),
    ("mood", None, None),
    ("mood", [1], "vector of another width than 2"),
    ("mood", [], "vector of no number or of more than 65,536"),
    ("mood", [1, 1e300], "vector is not finite"),
    ("mood", [1, None], "vector is not a list of numbers"),
    ("mood", [True, False], "vector is not a list of numbers"),
    ("mood", 5, "vector is not a list of numbers"),
]


@pytest.mark.parametrize(("column", "value", "reason"), VALUES)
def test_files_and_python_agree(column: str, value: Any, reason: str | None, tmp_path: pathlib.Path) -> None:
    row = GOOD | {column: value}
    chunk, rejected = by_file(row, tmp_path / "rows.jsonl")
    found = [each.removeprefix("mood: ").split(": ")[0] for each in reasons_of(row)]
    assert found == rejected == ([] if reason is None else [reason])
    if reason is None:
        assert_equal(only(row), chunk)


def is_no_number(text: str) -> bool:
    """Tell whether a text spells no number, not even an infinite one: a file may spell numbers as text."""
    try:
        float(text)
    except ValueError:
        return True
    return False


ANY = (
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs", "N"]), max_size=9).filter(is_no_number)
    | st.sampled_from(["", " ", "a\0", LONG, "x" * 1024])
    | st.lists(st.integers(-3, 3) | st.floats(-1e39, 1e39), max_size=3)
)
ROWS = st.fixed_dictionaries(dict.fromkeys(("user", "item", "rating", "text", "mood"), ANY) | {"timestamp": ANY})


@given(row=ROWS)
@settings(max_examples=300, deadline=None)
def test_files_and_python_agree_on_any_row(row: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Which column is named first differs: a file's vectors are looked at first. And a file may spell a date."""
    if type(row["timestamp"]) is str and row["timestamp"].strip():
        row["timestamp"] = 5
    single = [GOOD | {name: value} for name, value in row.items()]
    for each in (row, *single):
        chunk, rejected = by_file(each, tmp_path_factory.getbasetemp() / "any.jsonl")
        reasons = [reason.removeprefix("mood: ").split(": ")[0] for reason in reasons_of(each)]
        assert bool(reasons) == bool(rejected)
        if each is not row:
            assert reasons == rejected
        if not rejected:
            assert_equal(only(each), chunk)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"rating": HUGE}, "rating outside 1..5: 1000"),
        ({"rating": math.inf}, "rating is not finite: inf"),
        ({"rating": "4"}, "rating is not a number: '4'"),
        ({"timestamp": HUGE}, "time outside 1900..2200: 1000"),
        ({"timestamp": -(10**5000)}, "time outside 1900..2200: <a number of thousands of digits>"),
        ({"timestamp": datetime.datetime(1, 1, 1)}, "time outside 1900..2200: -62135596800.0"),
        ({"timestamp": "2020-01-01"}, "time is not a number: '2020-01-01'"),
        ({"mood": [1, HUGE]}, "mood: vector is not finite"),
        ({"mood": [1, math.nan]}, "mood: vector is not finite: [1, nan]"),
        ({"mood": np.ones(3)}, "mood: vector of another width than 2: 3"),
        ({"mood": np.ones((2, 2))}, "mood: vector is not a list of numbers"),
        ({"user": 10**2000}, "user id above 1,024 bytes: 1000"),
        ({"user": 10**5000}, "user id above 1,024 bytes: <a number of thousands of digits>"),
        ({"user": "a\ud800"}, "invalid UTF-8 in the user"),
        ({"user": b"a"}, "user is neither a string nor an integer: b'a'"),
        ({"item": math.nan}, "no item"),
        ({"timestamp": math.nan}, "no time"),
        ({10**5000: 1}, "unknown key <a number"),
    ],
)
def test_values_that_only_python_has(wrong: dict[Any, Any], reason: str) -> None:
    checked = check_mappings([GOOD, GOOD | wrong, GOOD], SCHEMA)
    assert checked.positions.tolist() == [0, 2]
    (refusal,) = checked.refused
    assert refusal.row == 1
    assert refusal.reason.startswith(reason)
    assert len(refusal.reason) < 200
    assert "\n" not in refusal.reason


def test_numbers_of_numpy_are_numbers() -> None:
    values = {"user": np.int64(7), "item": np.str_("b"), "timestamp": np.float64(5), "rating": np.int8(4)}
    for mood in (np.array([1, 2]), (np.float32(1), 2), range(1, 3)):
        plain = GOOD | {"user": 7, "rating": 4, "mood": [1, 2]}
        assert_equal(only(values | {"mood": mood}), only(plain))


def test_moments_may_be_datetimes() -> None:
    zone = datetime.timezone(datetime.timedelta(hours=2))
    for moment in (datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 1, 2, tzinfo=zone)):
        assert only(GOOD | {"timestamp": moment}).timestamp == 1577836800.0


def test_nan_is_missing_as_tables_have_it() -> None:
    row = only(GOOD | {"text": math.nan, "rating": np.float64("nan"), "mood": math.nan})
    assert (row.text[0], math.isnan(row.rating[0]), dict(row.vectors)) == ("", True, {})


def test_data_without_ratings() -> None:
    checked = check_mappings([GOOD, GOOD | {"rating": 3}], RowSchema(None, {}))
    assert [refusal.reason for refusal in checked.refused] == [
        "the run's data have no ratings, so a row may have none: 3"
    ]


# Tables


def a_table(ids: list[str], timestamp: list[float], rating: list[float], text: list[str], mood: Any) -> Interactions:
    n = len(ids)
    numbers = np.arange(n, dtype=np.int32)
    return Interactions(
        name="tiny",
        user_ids=Strings.of(ids),
        item_ids=Strings.of(["b"]),
        user=numbers,
        item=np.zeros(n, np.int32),
        timestamp=np.array(timestamp),
        rating=np.array(rating, np.float32),
        text=Strings.of(text),
        vectors={"mood": np.array(mood, np.float32)},
        rating_range=(1.0, 5.0),
    )


def test_a_table_is_checked_as_its_rows_are() -> None:
    ids = ["a", " ", LONG, "a\0b", "c", "d", "e", "f", "g", "h"]
    time = [5.0, 5, 5, 5, 1e12, math.nan, 5, 5, 5, 5]
    rating = [math.nan, 3, 3, 3, 3, 3, 99.0, math.inf, 3, 3]
    text = ["", "x", " ", "x", "x", "x", "x", "x", "a\0", " "]
    mood = [[1.0, 2.0]] * 9 + [[1.0, math.inf]]
    table_ = a_table(ids, time, rating, text, mood)
    mappings = [
        {"user": u, "item": "b", "timestamp": t, "rating": r, "text": x, "mood": m}
        for u, t, r, x, m in zip(ids, time, rating, text, mood, strict=True)
    ]
    found, expected = check_table(table_, SCHEMA), check_mappings(mappings, SCHEMA)
    assert found.refused == expected.refused
    assert found.positions.tolist() == expected.positions.tolist() == [0]
    assert_equal(found.rows, expected.rows)


def test_columns_of_a_table_that_the_run_does_not_have() -> None:
    table_ = a_table(["a", "b"], [5, 5], [3, 3], ["", " "], [[1, 2], [math.nan, 2]])
    assert [each.row for each in check_table(table_, RowSchema((1, 5), {})).refused] == [0]
    assert (
        check_table(table_, RowSchema(None, {"mood": 2})).refused[1].reason.startswith("the run's data have no ratings")
    )
    wider = check_table(table_, RowSchema((1, 5), {"mood": 3}))
    assert [each.reason for each in wider.refused] == ["mood: vector of another width than 3: 2"]
    assert list(wider.rows.text) == [""]
    partly = check_table(table_, SCHEMA)
    assert np.isnan(partly.rows.vectors["mood"][1]).all()


def test_a_table_whose_strings_are_damaged() -> None:
    table_ = a_table(["a", "b"], [5, 5], [3, 3], ["", "x"], [[1, 2], [1, 2]])
    damaged = Strings(np.frombuffer(b"\xff\xff", np.uint8), np.array([0, 1, 2]))
    reasons = [each.reason for each in check_table(dataclasses.replace(table_, user_ids=damaged), SCHEMA).refused]
    assert reasons == ["invalid UTF-8 in the user"] * 2
    assert (
        check_table(dataclasses.replace(table_, text=damaged), SCHEMA).refused[0].reason == "invalid UTF-8 in the text"
    )


def test_a_table_that_is_not_whole() -> None:
    table_, _ = load_interactions(
        DataSettings(synthetic=SyntheticSettings(num_interactions=30, num_users=5, num_items=4))
    )
    schema = RowSchema.of(table_)
    assert len(check_table(table_.take(np.arange(3, 9)), schema).rows) == 6
    with pytest.raises(UserError, match="there are 5 of user, 30 of item"):
        check_table(dataclasses.replace(table_, user=table_.user[:5]), schema)
    with pytest.raises(UserError, match=r"item numbers are 9 to 12, and it has 4"):
        check_table(dataclasses.replace(table_, item=table_.item + 9), schema)


# Arguments of questions


@pytest.mark.parametrize("wrong", ["user1", b"user1", None, 5, {"a": 1}, {"a"}, np.array("a"), np.zeros((2, 2))])
def test_values_that_are_not_lists(wrong: Any) -> None:
    with pytest.raises(UserError, match=r"^users must be a list, not "):
        rows.as_list("users", wrong)


def test_lists_of_ids() -> None:
    assert rows.ids_of("users", (each for each in ("a", 7, np.int64(8), np.str_("b")))) == ["a", "7", "8", "b"]
    for wrong in (None, b"a", 1.0, math.nan, True, ["a"], 10**5000):
        with pytest.raises(UserError, match="it must be a string, or a whole number"):
            rows.ids_of("users", ["a", wrong])


def test_lengths() -> None:
    assert rows.list_length(np.int64(3), 3, "items") == 3
    for wrong in (5.0, "5", None, math.nan):
        with pytest.raises(UserError, match="it must be a whole number, from 1 to the 9 items"):
            rows.list_length(wrong, 9, "items")


def test_moments() -> None:
    assert rows.moment_of(datetime.datetime(1970, 1, 2)) == 86400
    assert rows.moment_of(-math.inf) == -math.inf
    for wrong in ("2020", None, math.nan, 10**400, np.datetime64("2020-01-01")):
        with pytest.raises(UserError, match=r"^moment .*; it must be seconds since 1970 or a datetime$"):
            rows.moment_of(wrong)

"""Files of new interactions: what is read, what is counted, and what is refused with the columns found."""

from __future__ import annotations

import gzip
import json
import pathlib
from typing import Any

import numpy as np
import pytest

from drex_jax.common.errors import UserError
from drex_jax.data.interactions import Interactions
from drex_jax.data.strings import Strings
from drex_jax.serving.update_file import UpdateFile, read_update_file
from drex_jax.training.settings import base, settings_of


def read(path: pathlib.Path, text: str | bytes, own: bool = False) -> UpdateFile:
    """As a run with a vector of 3 numbers reads it; `own`: made of a table with other names."""
    settings: Any = base()
    if own:
        settings.data.format, settings.data.path = "table", "raw.csv"
        settings.data.columns.update(user="author", item="hotel", timestamp="date", rating="stars", text="")
    run = Interactions(
        name="tiny",
        user_ids=Strings.of(["a"]),
        item_ids=Strings.of(["b"]),
        user=np.zeros(2, np.int32),
        item=np.zeros(2, np.int32),
        timestamp=np.array([1.0, 2.0]),
        rating=np.full(2, np.nan, np.float32),
        text=Strings.empty(2),
        vectors={"mood": np.zeros((2, 3), np.float32)},
        rating_range=(1.0, 5.0),
    )
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_update_file(path, settings_of(settings), run)


def lines(*rows: dict[str, Any]) -> str:
    return "\n".join(json.dumps({"user": "a", "item": "b", "timestamp": 5} | row) for row in rows)


def test_every_row_is_accounted_for(tmp_path: pathlib.Path) -> None:
    found = read(tmp_path / "new", lines({}, {"rating": 3}, {}, {"rating": 99}, {}))
    assert (len(found.interactions), found.merged, len(found.rejected)) == (2, 2, 1)


def test_the_runs_width_is_what_a_vector_must_have(tmp_path: pathlib.Path) -> None:
    vectors = [1, 2], [1, 2, 3], [4, 5, 10**400], [4, 5, 1e300], [4, 5, 6]
    text = lines(*({"mood": vector, "timestamp": place} for place, vector in enumerate(vectors)))
    found = read(tmp_path / "new", text)
    np.testing.assert_array_equal(found.interactions.vectors["mood"], [[1, 2, 3], [4, 5, 6]])
    assert [each["line"] for each in found.rejected] == [1, 3, 4]
    assert found.rejected[0]["reason"] == "vector of another width than 3"


@pytest.mark.parametrize("damage", ["cut", "crc"])
def test_a_file_that_ends_early_is_refused_whole(tmp_path: pathlib.Path, damage: str) -> None:
    whole = gzip.compress(lines(*({"timestamp": place, "text": f"{place**9}"} for place in range(300))).encode())
    broken = whole[: len(whole) // 2] if damage == "cut" else whole[:-8] + bytes(8)
    with pytest.raises(UserError, match=r"new: the file ends early, at line .*: get the file again"):
        read(tmp_path / "new", broken)
    assert len(read(tmp_path / "new", whole).interactions) == 300


@pytest.mark.parametrize(
    ("text", "columns"),
    [("foo,bar\n1,2\n", "foo bar"), ("3\n[1]\n", "3"), ("%PDF-1.4\n", "%PDF-1.4"), ('{"a": 1}\n', "a")],
)
@pytest.mark.parametrize("own", [False, True])
def test_a_wrong_file_is_told_by_its_columns(tmp_path: pathlib.Path, text: str, columns: str, own: bool) -> None:
    with pytest.raises(UserError) as told:
        read(tmp_path / "new", text, own)
    expected = f"{tmp_path / 'new'}: its columns are {columns}; expected new interactions"
    assert str(told.value).startswith(expected)
    assert "user item rating timestamp text mood" in str(told.value)
    assert ("or hotel stars date author as the run's data" in str(told.value)) == own


def test_a_file_without_times(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="its columns are user item, and no column timestamp: an update must"):
        read(tmp_path / "new", "user,item\na,b\n", own=True)
    with pytest.raises(UserError, match="its columns are author hotel, and no column date: an update must"):
        read(tmp_path / "new", "author,hotel\na,b\n", own=True)
    assert len(read(tmp_path / "new", "author,hotel,date\na,b,5\n", own=True).interactions) == 1

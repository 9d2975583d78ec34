import dataclasses
import json

import numpy as np
import pytest

from drex_jax.common.errors import UserError
from drex_jax.data.interactions import Interactions
from drex_jax.data.strings import Strings


def example(n=6, vectors=True, split=True):
    return Interactions(
        name="example",
        user_ids=Strings.of(f"u{k}" for k in range(min(n, 3))),
        item_ids=Strings.of(f"i{k}" for k in range(min(n, 2))),
        user=(np.arange(n) % 3).astype(np.int32),
        item=(np.arange(n) % 2).astype(np.int32),
        timestamp=np.arange(n, dtype=np.float64),
        rating=np.where(np.arange(n) == 1, np.nan, 3.0).astype(np.float32),
        text=Strings.of("é" * (k % 9) for k in range(n)),
        vectors={"../odd name": np.ones((n, 2), np.float32)} if vectors else {},
        rating_range=(1.0, 5.0),
        given_split=np.zeros(n, np.int8) if split else None,
        item_vectors={"image/odd": np.array([[1, 2, 3], [np.nan] * 3], np.float32)[: min(n, 2)]} if vectors else {},
    )


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("n", [0, 6, 50_000])
def test_saved_is_loaded(tmp_path, n, mmap):
    for vectors, split in ((True, True), (False, False)):
        table = example(n, vectors, split)
        table.save(tmp_path / "table")
        again = Interactions.load(tmp_path / "table", mmap)
        again.validate()
        assert again.sha256() == table.sha256()
        assert (again.name, again.rating_range, list(again.vectors)) == (
            table.name,
            table.rating_range,
            list(table.vectors),
        )
        assert list(again.item_vectors) == list(table.item_vectors)
        assert isinstance(again.timestamp, np.memmap) == (mmap and n == 50_000)
        assert [path.name for path in tmp_path.iterdir()] == ["table"]


def test_a_folder_from_before_item_vectors_still_loads(tmp_path):
    table = example(vectors=False)
    table.save(tmp_path)
    header = tmp_path / "columns.json"
    kept = {key: value for key, value in json.loads(header.read_text()).items() if key != "item_vectors"}
    header.write_text(json.dumps(kept))
    again = Interactions.load(tmp_path)
    assert again.item_vectors == {}
    assert again.sha256() == table.sha256()


def test_a_failing_save_leaves_the_old_table(tmp_path):
    example().save(tmp_path / "table")
    broken = dataclasses.replace(example(), rating=np.array([object()] * 6))
    with pytest.raises(ValueError, match="allow_pickle"):
        broken.save(tmp_path / "table")
    assert [path.name for path in tmp_path.iterdir()] == ["table"]
    assert Interactions.load(tmp_path / "table").sha256() == example().sha256()


def names():
    columns = ["user", "item", "timestamp", "rating", "vector0", "item_vector0", "given_split"]
    columns += [f"{name}.{part}" for name in ("text", "user_ids", "item_ids") for part in ("bytes", "offsets")]
    return [f"{column}.npy" for column in columns] + ["columns.json"]


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "garbage", "pickle", "shorter", "other type"])
def test_a_damaged_file_is_named(tmp_path, name, damage):
    example().save(tmp_path)
    path = tmp_path / name
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage in ("shorter", "other type"):
        if name == "columns.json":
            path.write_text('{"schema": "something else"}')
        else:
            column = np.load(path)
            np.save(path, column[:-1] if damage == "shorter" else column.astype(np.complex64))
    elif damage == "pickle":
        with path.open("wb") as file:
            np.save(file, np.array([{}], object), allow_pickle=True)
    else:
        path.write_bytes({"empty": b"", "cut": data[:-3], "garbage": b"\xff" * 200}[damage])
    with pytest.raises(UserError) as error:
        Interactions.load(tmp_path)
    assert name.split(".")[0] in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rating_range", [1, 2, 3]),
        ("rating_range", [5, 1]),
        ("rating_range", ["nan", 5]),
        ("vectors", "ab"),
        ("vectors", [["a"]]),
        ("item_vectors", ["a", "a"]),
        ("interactions", 1e999),
        ("interactions", None),
    ],
)
def test_a_header_with_other_values(tmp_path, field, value):
    example().save(tmp_path)
    header = json.loads((tmp_path / "columns.json").read_text())
    (tmp_path / "columns.json").write_text(json.dumps(header | {field: value}))
    with pytest.raises(UserError, match=r"columns.json: damaged"):
        Interactions.load(tmp_path)


def test_a_column_never_takes_more_than_its_file(tmp_path):
    example().save(tmp_path)
    path = tmp_path / "rating.npy"
    path.write_bytes(path.read_bytes().replace(b"(6,), }" + b" " * 12, b"(6" + b"0" * 12 + b",), }"))
    with pytest.raises(UserError, match=r"rating.npy: damaged"):
        Interactions.load(tmp_path)


def test_an_id_that_is_no_text(tmp_path):
    example().save(tmp_path)
    np.save(tmp_path / "user_ids.bytes.npy", np.full_like(np.load(tmp_path / "user_ids.bytes.npy"), 0xFF))
    with pytest.raises(UserError, match=r"string 0 of .* is no UTF-8"):
        list(Interactions.load(tmp_path).user_ids)


def test_validate_names_the_broken_promise():
    good = example()
    good.validate()
    time = np.arange(6.0)
    breaks = {
        "timestamps are not in order": {"timestamp": time[::-1]},
        "timestamp is not finite": {"timestamp": time * np.nan},
        "outside 1900..2200": {"timestamp": time + 1e12},
        "rating is float64": {"rating": good.rating.astype(np.float64)},
        "rating is outside": {"rating": good.rating + np.float32(9)},
        "users are not numbered": {"user": good.user[::-1]},
        "items are not numbered": {"item_ids": Strings.of(["a", "b", "c"])},
        "item id occurs twice": {"item_ids": Strings.of(["a", "a"])},
        "item id is empty": {"item_ids": Strings.of(["a", ""])},
        "text has 5 rows": {"text": Strings.empty(5)},
        "has a row that is not finite": {"vectors": {"v": np.full((6, 1), np.inf, np.float32)}},
        "item vector v has 3 rows": {"item_vectors": {"v": np.ones((3, 1), np.float32)}},
        "item vector v is float64": {"item_vectors": {"v": np.ones((2, 1))}},
        "item vector v has a row": {"item_vectors": {"v": np.array([[1, np.nan], [1, 1]], np.float32)}},
        "given_split": {"given_split": np.full(6, 3, np.int8)},
    }
    for words, change in breaks.items():
        with pytest.raises(ValueError, match=words):
            dataclasses.replace(good, **change).validate()


def test_take_keeps_numbers_and_ids():
    part = example().take(np.array([1, 4]))
    assert part.user.tolist() == [1, 1]
    assert list(part.text) == ["é", "éééé"]
    assert (part.num_users, part.num_items, len(part)) == (3, 2, 2)
    assert part.item_vectors["image/odd"].shape == (2, 3)


def test_the_fingerprint_sees_every_column():
    good = example()
    changes = [
        {"user": good.user[::-1]},
        {"rating": good.rating + 1},
        {"timestamp": good.timestamp + 1},
        {"text": Strings.of("abcdef")},
        {"item_ids": Strings.of(["i0", "j1"])},
        {"vectors": {}},
        {"item_vectors": {}},
        {"item_vectors": {"other": good.item_vectors["image/odd"]}},
        {"item_vectors": {"image/odd": good.item_vectors["image/odd"][::-1]}},
        {"given_split": None},
    ]
    prints = {good.sha256()} | {dataclasses.replace(good, **change).sha256() for change in changes}
    assert len(prints) == len(changes) + 1


def test_a_number_without_an_id_is_named(tmp_path):
    example().save(tmp_path / "saved")
    np.save(tmp_path / "saved" / "user.npy", np.full(6, 999, np.int32))
    with pytest.raises(UserError, match=r"user\.npy: numbers beyond"):
        Interactions.load(tmp_path / "saved")

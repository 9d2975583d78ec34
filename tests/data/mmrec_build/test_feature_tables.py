"""Published feature arrays in the order of the items, compared with slow versions; errors with file and position."""

import numpy as np
import pytest

from drex_jax.common.errors import UserError
from drex_jax.data.mmrec_build import feature_tables

ITEMS = {b"B000000002": 0, b"B000000009": 1, b"B000000001": 2}


def write_binary(path, rows):
    path.write_bytes(b"".join(name + values.astype("<f4").tobytes() for name, values in rows))
    return path


def wide(seed):
    return np.random.default_rng(seed).normal(size=4096).astype(np.float32)


@pytest.mark.parametrize("block", [1, 2, 1024])
def test_aligned_rows(tmp_path, monkeypatch, block):
    monkeypatch.setattr(feature_tables, "_BLOCK_ROWS", block)
    values = np.arange(1, 11, dtype=np.float16).reshape(5, 2)
    values[3] = 0
    names = ["B000000001", "other", "B000000002", "B000000009", "another"]
    np.save(tmp_path / "a.npy", values)
    (tmp_path / "ids.txt").write_text("\r\n".join(names) + "\r\n\n")
    present = feature_tables.align(tmp_path / "a.npy", tmp_path / "ids.txt", ITEMS, tmp_path / "out.npy")
    assert present == 2
    expected = np.full((3, 2), np.nan)
    for name, row in zip(names, values, strict=True):
        if name.encode() in ITEMS and row.any():
            expected[ITEMS[name.encode()]] = row
    table = np.load(tmp_path / "out.npy")
    assert table.dtype == np.float32
    np.testing.assert_array_equal(table, expected)


@pytest.mark.parametrize(
    ("ids", "change", "words"),
    [
        ("a\nb\n", None, r"ids\.txt: 2 ids for the 3 rows of .*a\.npy"),
        ("a\n\nb\n", None, r"ids\.txt: line 2 is empty"),
        ("a\nb\na\n", None, r"ids\.txt: 'a' is on line 1 and on line 3"),
        ("a\nb\nB000000009\n", np.nan, r"a\.npy: row 2 \(from 0\) is partly NaN"),
        (None, None, r"ids\.txt: cannot be read"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, ids, change, words):
    values = np.ones((3, 2))
    if change is not None:
        values[2, 1] = change
    np.save(tmp_path / "a.npy", values)
    if ids is not None:
        (tmp_path / "ids.txt").write_text(ids)
    with pytest.raises(UserError, match=words):
        feature_tables.align(tmp_path / "a.npy", tmp_path / "ids.txt", ITEMS, tmp_path / "out.npy")


def test_a_binary_file_record_by_record(tmp_path):
    rows = [(b"B000000009", wide(0)), (b"X000000000", wide(1)), (b"B000000009", wide(2)), (b"B000000001", wide(3) * 0)]
    path = write_binary(tmp_path / "image_features.b", rows)
    assert feature_tables.from_binary(path, ITEMS, tmp_path / "out.npy") == 1
    table = np.load(tmp_path / "out.npy")
    assert table.shape == (3, 4096)
    np.testing.assert_array_equal(table[1], wide(0))
    assert np.isnan(table[[0, 2]]).all()


def test_binary_files_that_are_none(tmp_path):
    path = write_binary(tmp_path / "torn.b", [(b"B000000001", wide(0)), (b"B000000002", wide(1))])
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    out = tmp_path / "out.npy"
    with pytest.raises(UserError, match=r"torn\.b: 32,781 bytes are 1 records and 16,387 bytes; expected records of"):
        feature_tables.from_binary(path, ITEMS, out)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="0 bytes are 0 records"):
        feature_tables.from_binary(path, ITEMS, out)
    path.write_bytes(whole.replace(b"B000000002", b"\xff\x00345678\n\n"))
    with pytest.raises(UserError, match=r"torn\.b: record 1 \(from 0\) begins with .*, no asin"):
        feature_tables.from_binary(path, ITEMS, out)
    broken = wide(1)
    broken[7] = np.inf
    write_binary(path, [(b"B000000001", wide(0)), (b"B000000002", broken)])
    with pytest.raises(UserError, match=r"torn\.b: row 1 \(from 0\) is partly NaN, infinite"):
        feature_tables.from_binary(path, ITEMS, out)
    with pytest.raises(UserError, match=r"cannot be read \(No such file"):
        feature_tables.from_binary(tmp_path / "absent.b", ITEMS, out)

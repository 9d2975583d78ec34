"""Feature arrays of items: accepted arrays, missing rows, and an error with file and row for every fault."""

import io

import numpy as np
import pytest

from drex_jax.common.errors import UserError
from drex_jax.data.readers import item_features


def read(folder, ids, names=()):
    notices: list[str] = []
    features = item_features.read(item_features.find(folder, names), np.array(ids, np.int64), notices)
    return features, notices


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, np.uint8, ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_come_in_the_order_of_the_items(tmp_path, monkeypatch, dtype, order):
    values = np.random.default_rng(0).integers(1, 99, (40, 3)).astype(dtype, order=order)
    np.save(tmp_path / "image_feat.npy", values)
    ids = np.random.default_rng(1).permutation(40)
    monkeypatch.setattr(item_features, "_BLOCK_BYTES", 84)  # seven rows in a block
    features, notices = read(tmp_path, ids)
    assert features["image"].dtype == np.float32
    np.testing.assert_array_equal(features["image"], np.stack([values[row] for row in ids]).astype(np.float32))
    assert notices == []


def test_all_files_or_those_named(tmp_path):
    for name in ("text", "audio", "image"):
        np.save(tmp_path / f"{name}_feat.npy", np.ones((2, 1)))
    np.save(tmp_path / "_feat.npy", np.ones((2, 1)))
    np.save(tmp_path / "graph.npy", np.ones((2, 1)))
    assert list(item_features.find(tmp_path)) == ["audio", "image", "text"]
    assert list(item_features.find(tmp_path, ("text", "audio"))) == ["audio", "text"]
    with pytest.raises(UserError) as error:
        item_features.find(tmp_path, ("text", "video"))
    for word in ("data.item_features", "video_feat.npy does not exist", "audio_feat.npy, image_feat.npy, text_feat"):
        assert word in str(error.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="feature files there: none"):
        item_features.find(tmp_path / "empty", ("video",))


def test_rows_of_nan_or_zeros_are_missing_and_said(tmp_path):
    values = np.ones((8, 2), np.float32)
    values[[2, 6]] = np.nan
    values[5] = 0
    values[3, 0] = 0  # a present row with a zero
    np.save(tmp_path / "image_feat.npy", values)
    features, notices = read(tmp_path, [6, 5, 3, 0])
    np.testing.assert_array_equal(features["image"], [[np.nan] * 2, [np.nan] * 2, [0, 1], [1, 1]])
    assert len(notices) == 2
    assert "2 of 4 items have no image features" in notices[0]
    assert "the first is row 5" in notices[0]
    assert "4 of 8 rows are of items without interactions" in notices[1]


def saved(write, *arguments, **options):
    buffer = io.BytesIO()
    write(buffer, *arguments, **options)
    return buffer.getvalue()


ONES = np.ones((4, 2), np.float32)
WHOLE = saved(np.save, ONES)


def with_value(row, value):
    values = ONES.astype(np.float64)
    values[row, 1] = value
    return saved(np.save, values)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "damaged"),
        (WHOLE[:-3], "damaged"),
        (WHOLE[:50], "damaged"),
        (b"\xff" * 200, "damaged"),
        (WHOLE.replace(b"(4, 2)", b"(4,-2)"), "damaged"),
        (WHOLE.replace(b"'<f4'", b"'<q9'"), "damaged"),
        (WHOLE.replace(b"(4, 2)", b"(4,9" + b"0" * 14 + b")"), "damaged"),
        (WHOLE[:10] + b"(" * (len(WHOLE) - 10), "damaged"),
        (saved(np.save, np.zeros((4, 70_000), np.int8)), "70,000 numbers for an item; at most 65,536"),
        (
            b"\x80\x04\x95\n\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s.",
            "Python objects, which are never loaded",
        ),
        (saved(np.save, np.array([[{}]], object), allow_pickle=True), "Python objects, which are never loaded"),
        (saved(np.savez, ONES), "an archive"),
        (saved(np.save, ONES.astype(np.complex64)), "holds complex64"),
        (saved(np.save, ONES.astype(bool)), "holds bool"),
        (saved(np.save, ONES.astype("S3")), r"holds \|S3"),
        (saved(np.save, ONES[:, 0]), r"shape \(4,\)"),
        (saved(np.save, ONES[None]), r"shape \(1, 4, 2\)"),
        (saved(np.save, ONES[:, :0]), "shape|damaged"),
        (saved(np.save, ONES[:3]), "3 rows, but the data has item 3 .1 item ids are beyond.*4 rows or more"),
        (with_value(1, np.nan), r"row 1 \(from 0\) is partly NaN"),
        (with_value(2, np.inf), r"row 2 \(from 0\)"),
        (with_value(2, 1e300), r"row 2 \(from 0\).*beyond float32"),
        (saved(np.save, np.full((4, 2), np.inf)), r"row 0 \(from 0\)"),
        (saved(np.save, ONES * 0), "no item has image features"),
        (saved(np.save, ONES * np.nan), "no item has image features"),
    ],
)
def test_a_bad_file_is_one_line_with_its_name(tmp_path, data, words):
    path = tmp_path / "image_feat.npy"
    path.write_bytes(data)
    with pytest.raises(UserError, match=words) as error:
        read(tmp_path, [3, 0, 2, 1])
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read \(No such file"):
        item_features.open_array(tmp_path / "image_feat.npy")

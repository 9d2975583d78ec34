"""The layout of MMRec, from the folder to the validated table."""

import gzip

import numpy as np
import pytest

from drex_jax.common.errors import UserError
from drex_jax.data import events
from drex_jax.data.load import DataSettings, load_interactions
from drex_jax.data.split import split_interactions

HEADER = "userID\titemID\trating\ttimestamp\tx_label"
ROWS = ["0\t2\t1.0\t0\t0", "0\t0\t1.0\t0\t1", "4\t2\t1.0\t0\t0", "4\t3\t1.0\t0\t2", "0\t3\t1.0\t0\t2"]


def write(folder, rows=ROWS, header=HEADER, name="small.inter", end="\n"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(end.join([header, *rows]) + end, newline="")
    return str(folder)


def features(folder, name="image", rows=5, width=2):
    values = np.arange(1, rows * width + 1, dtype=np.float16).reshape(rows, width)
    np.save(folder / f"{name}_feat.npy", values)
    return values


def read(path, **options):
    return load_interactions(DataSettings("mmrec", path, **options))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("whole_folder", [True, False])
def test_the_table_and_its_features(tmp_path, end, whole_folder):
    folder = write(tmp_path, end=end)
    values = features(tmp_path)
    table, report = read(folder if whole_folder else f"{folder}/small.inter")
    assert table.name == "mmrec:small"
    assert (report.rows_read, report.kept, report.rejected) == (5, 5, 0)
    assert table.given_split is not None
    rows_read = {
        (table.user_ids[user], table.item_ids[item], int(part))
        for user, item, part in zip(table.user, table.item, table.given_split, strict=True)
    }
    assert rows_read == {("0", "2", 0), ("0", "0", 1), ("4", "2", 0), ("4", "3", 2), ("0", "3", 2)}
    assert not table.has_rating.any()
    assert (table.timestamp == 0).all()
    assert table.item_vectors["image"].dtype == np.float32
    for number, name in enumerate(table.item_ids):
        np.testing.assert_array_equal(table.item_vectors["image"][number], values[int(name)])
    text = "\n".join(report.lines)
    assert "no times" in text
    assert "2 of 5 rows are of items without interactions" in text
    assert "features of items: image (2 wide)" in text
    ordered = events.in_learning_order(table, split_interactions(table, "given"))
    for number, name in enumerate(ordered.item_ids):
        np.testing.assert_array_equal(ordered.item_vectors["image"][number], values[int(name)])


def test_a_gzip_and_a_given_name(tmp_path):
    (tmp_path / "clothing.inter.gz").write_bytes(gzip.compress("\n".join([HEADER, *ROWS]).encode()))
    assert read(str(tmp_path))[0].name == "mmrec:clothing"
    assert read(str(tmp_path), name="mine")[0].name == "mine"


def test_columns_in_any_order_and_the_least_there_can_be(tmp_path):
    table, report = read(write(tmp_path, ["2\t0\t1", "0\t0\t0"], "x_label\tuserID\titemID"))
    assert table.given_split is not None
    assert sorted(zip(table.item, table.given_split, strict=True)) == [(0, 0), (1, 2)]
    assert "no timestamp column" in report.notices[0]


def test_times_and_ratings_that_vary_are_read(tmp_path):
    rows = ["0\t2\t5.0\t1400000000\t0", "0\t0\t1.0\t1300000000\t1", "4\t2\t3\t1200000000\t2"]
    table, report = read(write(tmp_path, rows), rating_min=1.0, rating_max=5.0)
    assert table.timestamp.tolist() == [1.2e9, 1.3e9, 1.4e9]
    assert table.rating.tolist() == [3, 1, 5]
    assert table.rating_range == (1, 5)
    assert not [notice for notice in report.notices if "time" in notice or "rating" in notice]
    table, report = read(str(tmp_path))
    assert not table.has_rating.any()
    assert table.rating_range is None
    assert any("ratings are not read; data.rating_min" in notice for notice in report.notices)


def test_a_constant_column_is_a_placeholder_whatever_it_holds(tmp_path):
    table, report = read(write(tmp_path, ["0\t0\t5\tnever\t0", "1\t1\t5\tnever\t2"]), rating_min=1.0, rating_max=5.0)
    assert (table.timestamp == 0).all()
    assert not table.has_rating.any()
    assert "placeholder" in report.notices[0]


def test_users_without_a_train_item_are_kept_and_said(tmp_path):
    table, report = read(write(tmp_path, [*ROWS, "7\t2\t1.0\t0\t2"]))
    assert "7" in list(table.user_ids)
    assert any("1 of 3 users have no train item" in notice for notice in report.notices)


BAD_ROWS = {
    "user is no whole number from 0": "-1\t0\t1\t0\t0",
    "item is no whole number from 0": "0\t1.0\t1\t0\t0",
    "user is no whole number": "1234567890123456789\t0\t1\t0\t0",
    "item is no whole number": "0\t٣\t1\t0\t0",
    "no user": "\t0\t1\t0\t0",
    "no item": "0\t \t1\t0\t0",
    "split is none of": "0\t0\t1\t0\t3",
    "split is none": "0\t0\t1\t0\t",
    "wrong number of fields": "0\t0\t1",
    "time outside": "0\t0\t1\t1e300\t0",
    "time is not": "0\t0\t1\tsoon\t0",
}


@pytest.mark.parametrize("reason", BAD_ROWS)
def test_bad_rows_go_to_the_quarantine_with_their_line(tmp_path, reason):
    rows = [ROWS[0], BAD_ROWS[reason], *(f"0\t{k}\t1\t{k}\t{k % 3}" for k in range(40))]
    quarantine = tmp_path / "quarantine.jsonl"
    table, report = load_interactions(DataSettings("mmrec", write(tmp_path / "data", rows)), quarantine)
    assert (len(table), report.rejected) == (41, 1)
    assert next(iter(report.by_reason)).startswith(reason)
    assert '"line":3' in quarantine.read_text()


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("userID\titemID\trating", r"no split column; its header has: userID, itemID, rating; add a column 'x_label'"),
        ("user_id:token\titemID\tx_label", r"no column named 'userID'; its header has: user_id:token, itemID"),
        ("userID,itemID,x_label", r"no column named 'userID'; its header has: userID,itemID,x_label; expected .*tab"),
        ("userID\tx_label", "no column named 'itemID'"),
        ("userID\titemID\tx_label\tuserID", "more than one column named 'userID'"),
    ],
)
def test_a_wrong_header_is_shown(tmp_path, header, words):
    write(tmp_path, ["0\t0\t0"], header)
    with pytest.raises(UserError, match=words) as error:
        read(str(tmp_path))
    assert "small.inter" in str(error.value)
    assert "\n" not in str(error.value)


def test_none_or_two_tables(tmp_path):
    with pytest.raises(UserError, match=r"no file here is named \*\.inter"):
        read(str(tmp_path))
    write(tmp_path)
    write(tmp_path, name="other.inter")
    with pytest.raises(UserError, match=r"more than one file could be meant \(other\.inter, small\.inter\)"):
        read(str(tmp_path))
    with pytest.raises(UserError, match=r"no rows; expected NAME\.inter"):
        read(write(tmp_path / "bare", []))


def test_ids_beyond_the_table(tmp_path):
    folder = write(tmp_path)
    features(tmp_path, rows=3)
    with pytest.raises(UserError, match=r"image_feat\.npy: 3 rows, but the data has item 3"):
        read(folder)


def test_features_by_name(tmp_path):
    folder = write(tmp_path)
    features(tmp_path)
    features(tmp_path, "audio")
    assert list(read(folder)[0].item_vectors) == ["audio", "image"]
    assert list(read(folder, item_features=("image",))[0].item_vectors) == ["image"]
    with pytest.raises(UserError, match=r"text_feat\.npy does not exist; feature files there: audio_feat\.npy, image"):
        read(folder, item_features=("text",))
    with pytest.raises(UserError, match=r"data\.item_features=image: only data\.format=mmrec"):
        load_interactions(DataSettings("yelp", folder, item_features=("image",)))


def test_a_cut_or_a_core_keeps_each_item_s_own_row(tmp_path):
    rng = np.random.default_rng(0)
    rows = sorted({f"{rng.integers(9)}\t{rng.integers(12)}\t1\t{k}\t0" for k in range(60)})
    folder = write(tmp_path, rows)
    values = features(tmp_path, rows=12)
    table, _ = read(folder, max_interactions=40, k_core=3)
    assert 0 < table.num_items < 12
    for number, name in enumerate(table.item_ids):
        np.testing.assert_array_equal(table.item_vectors["image"][number], values[int(name)])


@pytest.mark.parametrize(
    ("name", "shape", "sizes", "widths"),
    [
        ("baby", (160_792, 19_445, 7_050), (118_551, 21_682, 20_559), {}),
        ("tiktok", (68_722, 9_308, 6_710), (59_541, 3_051, 6_130), {"audio": 128, "image": 128}),
    ],
)
def test_published_sets(real_data, name, shape, sizes, widths):
    table, report = read(str(real_data / name))
    assert (len(table), table.num_users, table.num_items) == shape
    parts = split_interactions(table, "given")
    assert tuple(parts.sizes.values()) == sizes
    assert report.rejected == report.duplicates == 0
    ordered = events.in_learning_order(table, parts)
    assert {feature: values.shape[1] for feature, values in ordered.item_vectors.items()} == widths
    for feature, values in ordered.item_vectors.items():
        raw = np.load(real_data / name / f"{feature}_feat.npy")
        np.testing.assert_array_equal(values, raw[[int(item) for item in ordered.item_ids]].astype(np.float32))

"""Raw Amazon files converted to the layout of MMRec and read back, and the command line."""

import collections
import dataclasses
import gzip
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from drex_jax.common.errors import UserError
from drex_jax.data.load import DataSettings, load_interactions
from drex_jax.data.mmrec_build.build import EXPECTED, Sources, build_mmrec, held_out, split_labels

USERS, ITEMS = 8, 12


def raw(folder, seed=0):
    """A review file of 8 users and 12 items, not in time order, with metadata, an image binary and an array."""
    rng = np.random.default_rng(seed)
    pairs = [(user, item) for user in range(USERS) for item in range(ITEMS) if rng.random() < 0.9]
    pairs.append((99, 99))  # outside any core
    rows = [
        {
            "reviewerID": f"U{user}",
            "asin": f"B{item:09}",
            "overall": float(rng.integers(1, 6)),
            "unixReviewTime": int(rng.integers(1_300_000_000, 1_400_000_000)),
        }
        for user, item in rng.permutation(pairs).tolist()
    ]
    rows.append({**rows[0], "unixReviewTime": 1_500_000_000})  # the same pair again, later
    (folder / "reviews.json").write_text("\n".join(map(json.dumps, rows)))
    (folder / "meta.json").write_text("\n".join(repr({"asin": f"B{k:09}", "title": f"toy {k % 3}"}) for k in range(9)))
    features = rng.normal(size=(ITEMS, 4096)).astype("<f4")
    (folder / "image.b").write_bytes(b"".join(b"B%09d" % k + features[k].tobytes() for k in range(3, ITEMS)))
    np.save(folder / "audio.npy", features[:, :5].astype(np.float64))
    (folder / "ids.txt").write_text("\n".join(f"B{k:09}" for k in range(ITEMS)))
    return rows, features


def sources(folder, **changes):
    given = Sources(
        folder / "reviews.json",
        metadata=folder / "meta.json",
        arrays={"audio": (folder / "audio.npy", folder / "ids.txt")},
        images=folder / "image.b",
        text_width=4,
    )
    return dataclasses.replace(given, **changes)


@pytest.mark.parametrize("split", ["random", "time"])
def test_there_and_back(tmp_path, split):
    rows, features = raw(tmp_path)
    lines = build_mmrec(sources(tmp_path, split=split), tmp_path / "toys", "toys")
    table, report = load_interactions(DataSettings("mmrec", str(tmp_path / "toys"), rating_min=1.0, rating_max=5.0))
    assert table.name == "mmrec:toys"
    assert report.rejected == 0
    ids = [
        [line.split("\t")[0] for line in (tmp_path / "toys" / f"{side}_id_mapping.csv").read_text().splitlines()[1:]]
        for side in "ui"
    ]
    inside = [row for row in rows[:-1] if row["reviewerID"] != "U99"]
    for names, key in zip(ids, ("reviewerID", "asin"), strict=True):
        assert names == list(dict.fromkeys(row[key] for row in inside))  # in the order of the file
    pairs_read = {
        (ids[0][int(table.user_ids[user])], ids[1][int(table.item_ids[item])], float(rating), int(time))
        for user, item, rating, time in zip(table.user, table.item, table.rating, table.timestamp, strict=True)
    }
    assert pairs_read == {(row["reviewerID"], row["asin"], row["overall"], row["unixReviewTime"]) for row in inside}
    assert table.given_split is not None
    for user in range(table.num_users):
        mine = table.given_split[table.user == user]  # in time order
        validation, test = held_out(np.array([len(mine)]))
        assert ((mine == 1).sum(), (mine == 2).sum()) == (validation[0], test[0])
        if split == "time":
            assert (np.diff(mine) >= 0).all()
    asins = [ids[1][int(name)] for name in table.item_ids]
    for number, asin in enumerate(asins):
        row = int(asin[1:])
        np.testing.assert_array_equal(table.item_vectors["audio"][number], features[row, :5])
        expected = features[row] if row >= 3 else np.full(4096, np.nan)
        np.testing.assert_array_equal(table.item_vectors["image"][number], expected)
        assert np.isnan(table.item_vectors["text"][number]).all() == (row >= 9)
    assert np.isnan(table.item_vectors["image"]).all(1).sum() == 3
    texts = [json.loads(line) for line in (tmp_path / "toys" / "item_texts.jsonl").read_text().splitlines()]
    assert [text["asin"] for text in texts] == ids[1]
    assert all(
        text["text"] == (f"toy {int(text['asin'][1:]) % 3}" if int(text["asin"][1:]) < 9 else "") for text in texts
    )
    said = "\n".join(lines)
    for words in (
        "1 repeated a user and item, 1 outside the 5-core",
        "image_feat.npy: 9 of 12 items",
        f"split {split}",
    ):
        assert words in said


def test_a_ratings_file_in_either_order(tmp_path):
    rows, _ = raw(tmp_path)
    orders = {"user,item,rating,timestamp": "reviewerID asin overall unixReviewTime"}
    orders["item,user,rating,timestamp"] = "asin reviewerID overall unixReviewTime"
    build_mmrec(Sources(tmp_path / "reviews.json"), tmp_path / "json", "toys")
    for columns, keys in orders.items():
        path = tmp_path / "ratings.csv"
        path.write_text("".join(",".join(str(row[key]) for key in keys.split()) + "\n" for row in rows))
        out = tmp_path / columns
        build_mmrec(Sources(path, tuple(columns.split(","))), out, "toys")
        for name in ("toys.inter", "u_id_mapping.csv", "i_id_mapping.csv"):
            assert (out / name).read_bytes() == (tmp_path / "json" / name).read_bytes()


def test_the_seed_draws_the_split():
    user = np.repeat(np.arange(50), 12)
    one, same, other = (split_labels(user, np.zeros(600), "random", seed) for seed in (1, 1, 2))
    assert one.tolist() == same.tolist() != other.tolist()
    places = np.bincount(np.arange(600)[one == 2] % 12, minlength=12)
    assert (places > 0).sum() > 8  # anywhere in the file, not only at the end


def test_held_out_counts():
    counts = np.array([0, 1, 2, 3, 5, 9, 10, 14, 15, 20, 25])
    validation, test = held_out(counts)
    assert validation.tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 3]
    assert test.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2]


def test_held_out_counts_are_the_published_ones(real_data):
    table, _ = load_interactions(DataSettings("mmrec", str(real_data / "baby")))
    parts = [np.bincount(table.user[table.given_split == part], minlength=table.num_users) for part in range(3)]
    validation, test = held_out(np.sum(parts, 0))
    np.testing.assert_array_equal(validation, parts[1])
    np.testing.assert_array_equal(test, parts[2])


def test_a_real_review_file(real_data, tmp_path):
    file = real_data / "amazon_musical_instruments" / "reviews_Musical_Instruments_5.json.gz"
    build_mmrec(Sources(file), tmp_path / "out", "music")
    table, _ = load_interactions(DataSettings("mmrec", str(tmp_path / "out")))
    assert (len(table), table.num_users, table.num_items) == (10_261, 1_429, 900)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split": "moon"}, "'moon' is unknown: it should be one of random time"),
        ({"k_core": -1}, "a core of -1"),
        ({"k_core": 50}, "no interaction is in a 50-core"),
        ({"metadata": None}, "no metadata file is given"),
        ({"arrays": {"image": (pathlib.Path("x"), pathlib.Path("y"))}}, "image features are given twice"),
        ({"arrays": {"text": (pathlib.Path("x"), pathlib.Path("y"))}}, "text features are given twice"),
        ({"arrays": {"../x": (pathlib.Path("x"), pathlib.Path("y"))}}, r"'\.\./x' cannot be part of a file name"),
        ({"arrays": {"v": (pathlib.Path("absent.npy"), pathlib.Path("y"))}}, r"absent\.npy: cannot be read"),
        ({"reviews": pathlib.Path("absent.json")}, r"absent\.json: no such file; expected Amazon reviews"),
        ({"images": pathlib.Path("absent.b")}, r"absent\.b: cannot be read"),
        ({"metadata": pathlib.Path("absent.json")}, r"absent\.json: cannot be read"),
    ],
)
def test_a_mistake_is_told_and_leaves_nothing(tmp_path, changes, words):
    raw(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(UserError, match=words) as error:
        build_mmrec(sources(tmp_path, **changes), tmp_path / "toys", "toys")
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_rows_that_are_bad(tmp_path):
    rows, _ = raw(tmp_path)
    path = tmp_path / "reviews.json"
    good = [json.dumps(row) for row in rows]
    path.write_text("\n".join([*good, "{torn"]))
    lines = build_mmrec(Sources(path), tmp_path / "one", "toys")
    assert any("1 rejected rows: invalid JSON (1)" in line for line in lines)
    assert f'"line":{len(good) + 1}' in (tmp_path / "one" / "quarantine.jsonl").read_text()
    path.write_text("\n".join([*good, *["{torn"] * 20]))
    with pytest.raises(UserError, match=r"% of \d+ rows are bad, above the share of 0\.05: invalid JSON \(20\)"):
        build_mmrec(Sources(path), tmp_path / "two", "toys")
    path.write_text("{torn")
    with pytest.raises(UserError, match=r"none of 1 rows is good: invalid JSON \(1\); expected Amazon reviews"):
        build_mmrec(Sources(path), tmp_path / "two", "toys")
    path.write_bytes(gzip.compress(b'{"torn in the first line')[:-8])
    with pytest.raises(UserError, match="none of 1 rows is good: the file ends early"):
        build_mmrec(Sources(path), tmp_path / "two", "toys")
    path.write_text("user,item,rating,timestamp\n")
    with pytest.raises(UserError, match="none of 1 rows is good: time is not a number"):
        build_mmrec(Sources(path), tmp_path / "two", "toys")
    with pytest.raises(UserError, match="columns 'user,item' should be user item rating timestamp"):
        build_mmrec(Sources(path, ("user", "item")), tmp_path / "two", "toys")


def test_features_of_other_items(tmp_path):
    raw(tmp_path)
    (tmp_path / "ids.txt").write_text("\n".join(f"X{k}" for k in range(ITEMS)))
    with pytest.raises(UserError, match="audio features of none of the 12 items"):
        build_mmrec(sources(tmp_path), tmp_path / "toys", "toys")
    (tmp_path / "meta.json").write_text("{'asin': 'X', 'title': 'toy'}")
    with pytest.raises(UserError, match="a text of none of the 12 items"):
        build_mmrec(sources(tmp_path, arrays={}), tmp_path / "toys", "toys")


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    raw(tmp_path)
    out = tmp_path / "toys"
    out.mkdir()
    build_mmrec(Sources(tmp_path / "reviews.json"), out, "toys")
    before = collections.Counter({path.name: path.stat().st_mtime_ns for path in out.iterdir()})
    with pytest.raises(UserError, match="not an empty folder"):
        build_mmrec(Sources(tmp_path / "reviews.json"), out, "toys")
    assert collections.Counter({path.name: path.stat().st_mtime_ns for path in out.iterdir()}) == before
    for name in ("", ".", "a/b", ".hidden"):
        with pytest.raises(UserError, match="cannot be that of a file"):
            build_mmrec(Sources(tmp_path / "reviews.json"), tmp_path / "new", name)


def run(*arguments):
    command = [sys.executable, "-m", "drex_jax", "build_mmrec", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_tool(tmp_path):
    raw(tmp_path)
    flags = [f"--reviews={tmp_path}/reviews.json", f"--out={tmp_path}/toys", f"--meta={tmp_path}/meta.json"]
    flags += ["--text_features", "--k_core=3", "--split=time", f"--image_features={tmp_path}/image.b"]
    flags += ["--features", f"audio={tmp_path}/audio.npy:{tmp_path}/ids.txt"]
    done = run(*flags)
    assert done.returncode == 0, done.stderr
    assert "data.format=mmrec" in done.stdout
    assert sorted(load_interactions(DataSettings("mmrec", str(tmp_path / "toys")))[0].item_vectors) == [
        "audio",
        "image",
        "text",
    ]
    again = run(*flags)
    assert again.returncode == 2
    assert again.stderr.startswith("drex_jax: ")
    assert again.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--reviews"),
        (["--reviews=x", "--out=y", "--moon"], "--moon"),
        (["--reviews=x", "--out=y", "--text_width=0"], "1 or more"),
        (["--reviews=x", "--out=y", "--features", "v=a.npy"], "NAME=ARRAY.npy:IDS.txt"),
        (["--reviews=x", "--out=y", "--features", "v=a:b", "v=c:d"], "v is given twice"),
    ],
)
def test_wrong_flags(flags, words):
    done = run(*flags)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_expected_words_name_both_kinds_of_file():
    assert "reviewerID" in EXPECTED
    assert "user,item,rating,timestamp" in EXPECTED

import gzip
import json
import random
import zlib

import numpy as np
import pytest

from drex_jax.common.errors import UserError
from drex_jax.data.interactions import Interactions
from drex_jax.data.load import DataSettings, SyntheticSettings, load_interactions
from drex_jax.data.readers import quarantine
from drex_jax.data.readers.quarantine import Quarantine
from tools.robustness.fuzzing import samples
from tools.robustness.fuzzing.readers import TABLE


def rows(n):
    return [
        json.dumps(
            {"user_id": f"u{k % 7}", "business_id": f"b{k % 5}", "stars": 1 + k % 5, "date": f"2020-01-{1 + k % 28:02}"}
        )
        for k in range(n)
    ]


def write(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_every_row_is_accounted_for(tmp_path):
    lines = rows(90) + rows(5) + ["{torn"] * 3 + ['{"user_id": ""}'] * 2
    random.Random(0).shuffle(lines)
    interactions, report = load_interactions(
        DataSettings("yelp", write(tmp_path / "f", lines)), tmp_path / "deep" / "quarantine.jsonl"
    )
    assert (report.rows_read, report.kept, report.duplicates, report.rejected) == (100, 90, 5, 5)
    assert report.by_reason == {"invalid JSON": 3, "no user": 2}
    assert len((tmp_path / "deep" / "quarantine.jsonl").read_text().splitlines()) == 5
    assert len(interactions) == 90
    text = "\n".join(report.lines)
    for word in (
        "100 rows read",
        "90 kept",
        "5 exact duplicates",
        "5 rejected",
        "3 x invalid JSON",
        "quarantine.jsonl",
    ):
        assert word in text


@pytest.mark.parametrize(("bad", "stops"), [(5, False), (6, True)])
def test_the_share_of_bad_rows(tmp_path, bad, stops):
    path = write(tmp_path / "f", rows(100 - bad) + ["{"] * bad)
    if not stops:
        assert load_interactions(DataSettings("yelp", path))[1].rejected == bad
        return
    with pytest.raises(UserError) as error:
        load_interactions(DataSettings("yelp", path), tmp_path / "q.jsonl")
    for word in ("6.0% of 100 rows", "max_bad_share=0.05", "invalid JSON (6)", "q.jsonl"):
        assert word in str(error.value)
    assert len((tmp_path / "q.jsonl").read_text().splitlines()) == 6


def test_duplicates_are_outside_the_share(tmp_path):
    assert load_interactions(DataSettings("yelp", write(tmp_path / "f", rows(10) * 20)))[1].duplicates == 190


def test_the_number_of_different_ids_is_bounded(tmp_path):
    path = write(tmp_path / "f", rows(50))
    assert load_interactions(DataSettings("yelp", path, max_ids=7))[0].num_users == 7
    with pytest.raises(UserError, match=r"more than 6 different users or items, such as 'u\d'.*data.max_ids"):
        load_interactions(DataSettings("yelp", path, max_ids=6))


def test_a_value_nested_deeper_than_can_be_shown(tmp_path):
    deep = '{"user_id": ' + "[" * 1000 + "]" * 1000 + "}"
    _, report = load_interactions(DataSettings("yelp", write(tmp_path / "f", [*rows(50), deep])), tmp_path / "q.jsonl")
    assert report.by_reason == {"user is neither a string nor an integer": 1}
    assert "nested too deep to be shown" in (tmp_path / "q.jsonl").read_text()


def test_a_split_nested_deeper_than_can_be_spelt(tmp_path):
    lines = [json.dumps(samples.table_row(number)) for number in range(50)]
    deep = json.dumps(samples.table_row(50) | {"split": 0}).replace('"split": 0', '"split": ' + "[" * 1000 + "]" * 1000)
    options = DataSettings("table", write(tmp_path / "f", [*lines, deep]), columns=TABLE, rating_min=1, rating_max=5)
    assert load_interactions(options)[1].by_reason == {"split is none of 0 train, 1 validation, 2 test": 1}


def test_a_torn_gzip_is_reported(tmp_path):
    data = gzip.compress("\n".join(rows(5000)).encode())
    (tmp_path / "f.gz").write_bytes(data[: len(data) // 2])
    interactions, report = load_interactions(DataSettings("yelp", str(tmp_path / "f.gz")))
    assert report.by_reason == {"the file ends early": 1}
    assert "ends early" in report.notices[0]
    assert report.notices[0] in report.lines
    assert report.rows_read == len(interactions) + report.duplicates + 1


def test_an_empty_quarantine_replaces_an_old_one(tmp_path):
    (tmp_path / "q").write_text("old")
    load_interactions(DataSettings("yelp", write(tmp_path / "f", rows(9))), tmp_path / "q")
    assert (tmp_path / "q").read_text() == ""


def test_a_list_of_rejected_rows_ends_before_the_disk_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(quarantine, "MAX_LISTED", 20)
    options = DataSettings("yelp", write(tmp_path / "f", [*rows(50), *["x"] * 30]), max_bad_share=1.0)
    _, report = load_interactions(options, tmp_path / "q.jsonl")
    assert report.rejected == 30
    assert len((tmp_path / "q.jsonl").read_text().splitlines()) == 20
    assert any("no more than the first 20 rejected rows" in line for line in report.lines)


def test_a_quarantine_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        Quarantine(tmp_path / "file" / "q.jsonl")


def test_the_scale_of_the_config_wins(tmp_path):
    path = write(tmp_path / "f", rows(50))
    interactions, report = load_interactions(DataSettings("yelp", path, rating_max=4, max_bad_share=0.5))
    assert interactions.rating_range == (1, 4)
    assert report.by_reason == {"rating outside 1..4": 10}
    with pytest.raises(UserError, match="rating_min=7"):
        load_interactions(DataSettings("yelp", path, rating_min=7))


def test_cut_and_core_are_reported(tmp_path):
    path = write(tmp_path / "f", rows(100))
    interactions, report = load_interactions(DataSettings("yelp", path, max_interactions=40, k_core=5))
    assert report.kept == 100
    assert min(np.bincount(interactions.user).min(), np.bincount(interactions.item).min()) >= 5
    assert any("60 interactions after" in line for line in report.lines)
    with pytest.raises(UserError, match="k_core=99"):
        load_interactions(DataSettings("yelp", path, k_core=99))


@pytest.mark.parametrize(
    ("field", "value"), [("format", "xml"), ("max_interactions", 0), ("max_bad_share", 1.5), ("k_core", -1)]
)
def test_a_setting_that_breaks_its_rule(field, value):
    with pytest.raises(UserError, match=f"data.{field} is {value!r}; it must be"):
        load_interactions(DataSettings(**{field: value}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_interactions", 0),
        ("num_users", 0),
        ("num_items", -1),
        ("missing_text", 1.5),
        ("missing_rating", -0.1),
        ("noise", -1),
        ("seed", -1),
    ],
)
def test_a_setting_of_the_synthetic_world_that_breaks_its_rule(field, value):
    with pytest.raises(UserError, match=f"data.synthetic.{field} is {value}; it must be"):
        load_interactions(DataSettings(synthetic=SyntheticSettings(**{field: value})))


def test_synthetic_says_so_with_its_noise_floor():
    interactions, report = load_interactions(
        DataSettings(synthetic=SyntheticSettings(num_interactions=500, num_users=30, num_items=20))
    )
    assert len(interactions) == 500
    assert 0 < report.noise_floor < 1
    assert "synthetic" in report.notices[0]
    assert f"{report.noise_floor:.4f}" in report.notices[0]


MADE = {
    "amazon": (DataSettings("amazon"), "reviews.json"),
    "yelp": (DataSettings("yelp"), "yelp_academic_dataset_review.json"),
    "movielens": (DataSettings("movielens"), "ratings.csv"),
    "u.data": (DataSettings("movielens"), "u.data"),
    "csv": (DataSettings("table", rating_min=1, rating_max=5, columns={**TABLE, "image": "image"}), "table.csv"),
    "jsonl": (DataSettings("table", rating_min=1, rating_max=5, columns={**TABLE, "image": "image"}), "table.jsonl"),
    "parquet": (DataSettings("table", rating_min=1, rating_max=5, columns={**TABLE, "image": "image"}), "t.parquet"),
    "mmrec": (DataSettings("mmrec", rating_min=1, rating_max=5), "some.inter"),
}  # fmt: skip


def made(kind, numbers):
    """Return rows of a format by their numbers; every fifth row is bad."""
    tables = [samples.table_row(n) | ({"rating": 9} if n % 5 == 0 else {}) for n in numbers]
    for n, row in zip(numbers, tables, strict=True):
        row["image"] = [0.5, 1.0, n] if n % 4 == 0 else row["image"]  # the others are two wide
    if kind in ("amazon", "yelp"):
        make = samples.amazon_row if kind == "amazon" else samples.yelp_row
        return samples.json_lines([make(n) | ({"stars": 9, "overall": 9} if n % 5 == 0 else {}) for n in numbers])
    if kind == "movielens":
        lines = [f"{n % 3},{n % 4},{9 if n % 5 == 0 else 2.5},{1e9 + n:.0f}" for n in numbers]
        return "\n".join(["userId,movieId,rating,timestamp", *lines]).encode()
    if kind in ("u.data", "mmrec"):
        lines = [f"{n % 3}\t{n % 4}\t{9 if n % 5 == 0 else 2}\t{n}" + "\t0" * (kind == "mmrec") for n in numbers]
        return "\n".join([*["userID\titemID\trating\ttimestamp\tx_label"] * (kind == "mmrec"), *lines]).encode()
    if kind == "csv":
        return samples.separated(tables, ",")
    return samples.parquet(tables) if kind == "parquet" else samples.json_lines(tables)


@pytest.mark.parametrize("kind", MADE)
def test_the_order_of_rows_changes_nothing(tmp_path, kind):
    options, name = MADE[kind]
    options = DataSettings(**{**vars(options), "path": str(tmp_path / name), "max_bad_share": 0.6})
    numbers = [*range(19), *range(1, 19, 3)]
    tables = []
    for seed in range(4):
        random.Random(seed).shuffle(numbers)
        (tmp_path / name).write_bytes(made(kind, numbers))
        tables.append(load_interactions(options))
    assert tables[0][1].rejected >= 3
    assert tables[0][1].duplicates >= 3
    for interactions, report in tables[1:]:
        assert interactions.sha256() == tables[0][0].sha256()
        assert (report.kept, report.duplicates, report.by_reason) == (
            tables[0][1].kept,
            tables[0][1].duplicates,
            tables[0][1].by_reason,
        )


YELP_CSV = {"user": "user_id", "item": "business_id", "rating": "stars", "timestamp": "date", "text": "text"}
MMREC = {"user": "userID", "item": "itemID", "rating": "rating", "timestamp": "timestamp", "split": "x_label"}
REAL = {
    "amazon": (DataSettings("amazon", "amazon_musical_instruments"), 10_261, 1_429, 900, 7),
    "yelp": (DataSettings("yelp", "yelp"), 3_610, 3_494, 2_219, 0),
    "kaggle": (
        DataSettings("table", "yelp/yelp.csv.gz", columns=YELP_CSV, rating_min=1, rating_max=5), 10_000, 6_403, 4_174, 0
    ),
    "movielens": (DataSettings("movielens", "movielens_latest_small"), 100_836, 610, 9_724, None),
    "baby": (DataSettings("table", "baby", columns=MMREC, rating_min=0, rating_max=1), 160_792, 19_445, 7_050, 160_792),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_files(real_data, tmp_path, name):
    options, n, users, items, without_text = REAL[name]
    options = DataSettings(**{**vars(options), "path": str(real_data / options.path)})
    interactions, report = load_interactions(options, tmp_path / "q.jsonl")
    assert (len(interactions), interactions.num_users, interactions.num_items) == (n, users, items)
    assert (report.rows_read, report.rejected, report.duplicates) == (n, 0, 0)
    assert interactions.has_rating.all()
    if without_text is not None:
        assert np.count_nonzero(~interactions.has_text) == without_text
    interactions.save(tmp_path / "saved")
    assert Interactions.load(tmp_path / "saved").sha256() == interactions.sha256()


def test_the_order_of_real_rows_does_not_matter(real_data, tmp_path):
    source = real_data / "yelp" / "yelp_academic_dataset_review.json.gz"
    lines = gzip.decompress(source.read_bytes()).splitlines(keepends=True)
    random.Random(1).shuffle(lines)
    (tmp_path / "shuffled").write_bytes(b"".join(lines))
    one, other = (load_interactions(DataSettings("yelp", str(path)))[0] for path in (source, tmp_path / "shuffled"))
    assert one.sha256() == other.sha256()


@pytest.mark.parametrize("share", [0.2, 0.7, 0.95])
def test_a_torn_real_file_keeps_its_whole_rows(real_data, tmp_path, share):
    data = next((real_data / "amazon_musical_instruments").iterdir()).read_bytes()
    (tmp_path / "torn.json.gz").write_bytes(data[: int(len(data) * share)])
    interactions, report = load_interactions(DataSettings("amazon", str(tmp_path)))
    assert report.rejected == 1
    whole = zlib.decompressobj(31).decompress(data[: int(len(data) * share)]).count(b"\n")
    assert len(interactions) == whole > 2000

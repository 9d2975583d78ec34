"""TFDS builders and the data sets they prepare, compared with the plain readers; without TensorFlow."""

import dataclasses
import filecmp
import gzip
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tensorflow_datasets.proto import tf_example_pb2

from drex_jax.common.cache import Store
from drex_jax.common.errors import UserError
from drex_jax.data.load import DataSettings, load_interactions
from drex_jax.data.tfds import prepared, records
from drex_jax.data.tfds.amazon import RELEASES, AmazonReviews
from drex_jax.data.tfds.builder import QUARANTINE, ReviewsConfig, _Part
from drex_jax.data.tfds.tables import ReviewTable, TripAdvisorReviews
from drex_jax.data.tfds.yelp import YelpReviews

BUILDERS = (AmazonReviews, YelpReviews, ReviewTable, TripAdvisorReviews)
TEXTS = ("good", "", None, "schön\n\u2028 ☕", "good", "two\nlines", " ")
STARS = (5.0, 4, None, 1, 2.0, 3)
HOTELS = {"user": "author", "item": "hotel_id", "rating": "rating", "timestamp": "date", "text": "text"}
WIDE = {"user": "u", "item": "i", "rating": "r", "timestamp": "t", "split": "s", "image": "v", "sound": "w", "text": ""}
SCALE = {"rating_min": 1.0, "rating_max": 5.0}


def yelp_row(k):
    row = {"user_id": f"ü{k % 7}", "business_id": f"b{k % 5}", "stars": STARS[k % 6], "text": TEXTS[k % 7]}
    return row | {"date": f"2020-01-{1 + k % 28:02} 03:04:{k % 60:02}"}


def amazon_row(k):
    row = {"reviewerID": f"A{k % 7}", "asin": f"00{k % 5}", "overall": STARS[k % 6], "reviewText": TEXTS[k % 7]}
    return row | {"summary": TEXTS[(k + 1) % 7], "unixReviewTime": 1_400_000_000 + k // 2}


def amazon_2023_row(k):
    row = {"user_id": f"A{k % 7}", "parent_asin": f"00{k % 5}", "rating": STARS[k % 6], "text": TEXTS[k % 7]}
    return row | {"title": TEXTS[(k + 1) % 7], "timestamp": 1_600_000_000_123 + 777 * k}  # fractions of seconds


def json_lines(row, n=40):
    """Return good rows, repeated rows, and bad rows of several kinds."""
    lines = [json.dumps(row(k), ensure_ascii=k % 2 == 0) for k in [*range(n), 3, 3, 4]]
    first = next(iter(row(0)))
    bad = ['{"torn', json.dumps(row(1) | {first: ""}), "[1]", json.dumps(row(2)).replace("}", ', "a": "\\ud800"}')]
    lines[7:7], lines[20:20] = bad[:2], bad[2:]
    rating = next(name for name in ("stars", "overall", "rating") if name in row(0))
    return "\n".join([*lines, json.dumps(row(1) | {rating: 9})]).encode() + b"\n"


def hotels(n=30):
    rows = [f'ann {k % 6},h{k % 4},{1 + k % 5},2012-08-{1 + k % 28:02},"nice, ""really"""' for k in range(n)]
    rows[3:3] = ["bob,h1,,2012-08-31,", "bob,h1,7,2012-08-31,x", ",h1,3,2012-08-31,x", "bob,h1,3,someday,é", "a,b"]
    return "\n".join(["author,hotel_id,rating,date,text", *rows]).encode()


def wide(n=30):
    rows = [f"u{k % 6}\ti{k % 4}\t{1 + k % 5}\t{k}.25\t{k % 3}\t[{k}, 0.5]\t{'[1]' if k % 4 else ''}" for k in range(n)]
    rows += ["u1\ti1\t3\t7\t9\t[1, 2]\t", "u1\ti1\t3\t7\t0\t[1]\t"]
    return "\n".join(["u\ti\tr\tt\ts\tv\tw", *rows]).encode()


CASES = {
    "yelp": ("yelp_academic_dataset_review.json", json_lines(yelp_row), DataSettings("yelp")),
    "amazon of 2014": (
        "reviews_Baby_5.json.gz", gzip.compress(json_lines(amazon_row), mtime=0), DataSettings("amazon")
    ),
    "amazon of 2018": ("Gift_Cards_5.json", json_lines(amazon_row), DataSettings("amazon", rating_max=4)),
    "amazon of 2023": ("Gift_Cards.jsonl", json_lines(amazon_2023_row), DataSettings("amazon")),
    "amazon, a torn file": ("x y.json.gz", gzip.compress(json_lines(amazon_row, 400))[:-200], DataSettings("amazon")),
    "tripadvisor": ("reviews.csv", hotels(), DataSettings("table", columns=HOTELS, **SCALE)),
    "table": ("r.tsv", wide(), DataSettings("table", columns=WIDE, **SCALE)),
    "times of a form": (
        "r.csv", b"u,i,t\na,b,31.08.2012\na,c,2012\n",
        DataSettings("table", columns={"user": "u", "item": "i", "timestamp": "t"}, time_format="%d.%m.%Y"),
    ),
    "no times": ("r.jsonl", b'{"u": 1, "i": 2}\n', DataSettings("table", columns={"user": "u", "item": "i"})),
}  # fmt: skip


@pytest.fixture
def raw(tmp_path):
    """A function that writes the file of a case into a new folder and returns (file, options that name it)."""

    def write(name="yelp"):
        file, content, options = CASES[name]
        (tmp_path / "raw").mkdir(exist_ok=True)
        path = tmp_path / "raw" / file
        path.write_bytes(content)
        return path, dataclasses.replace(options, path=str(path), max_bad_share=1.0)

    return write


def through_tfds(options, tmp_path):
    return dataclasses.replace(options, tfds_dir=str(tmp_path / "tfds"))


def everything(options, listed, *rest):
    """Return all results of reading: fingerprint, name and scale of the table, report, rejected rows."""
    interactions, report = load_interactions(options, listed, *rest)
    return interactions.sha256(), interactions.name, interactions.rating_range, report, listed.read_bytes()


def the_only(tmp_path):
    (folder,) = (tmp_path / "tfds").glob("*_*/*/1.0.0")
    return folder


@pytest.mark.parametrize("name", CASES)
def test_both_routes_give_the_same(raw, tmp_path, name, monkeypatch):
    _, options = raw(name)
    listed = tmp_path / "quarantine.jsonl"
    plain = everything(options, listed)
    monkeypatch.setattr(prepared, "CHUNK_ROWS", 11)
    assert everything(through_tfds(options, tmp_path), listed) == plain  # prepared
    before = {file: file.stat().st_mtime_ns for file in the_only(tmp_path).iterdir()}
    store = Store(tmp_path / "store")
    for _ in range(2):
        assert everything(through_tfds(options, tmp_path), listed, store.arrays) == plain  # and read again
    assert {file: file.stat().st_mtime_ns for file in the_only(tmp_path).iterdir()} == before


@pytest.mark.parametrize("name", ["amazon_musical_instruments", "yelp"])
def test_real_files_by_both_routes(real_data, tmp_path, name):
    options = DataSettings(name.partition("_")[0], str(real_data / name))
    plain = everything(options, tmp_path / "q")
    assert everything(through_tfds(options, tmp_path), tmp_path / "q") == plain


def test_without_the_raw_file(raw, tmp_path):
    path, options = raw()
    expected = load_interactions(options)[0].sha256()
    load_interactions(through_tfds(options, tmp_path))
    path.unlink()
    for given in (str(path), str(path.parent), None, "elsewhere/yelp"):
        interactions, report = load_interactions(
            dataclasses.replace(through_tfds(options, tmp_path), path=given), tmp_path / "q"
        )
        assert (interactions.sha256(), interactions.name) == (expected, f"yelp:{path.name}")
        assert str(the_only(tmp_path)) in report.notices[0]
    assert len((tmp_path / "q").read_bytes().splitlines()) == report.rejected == 5
    for change in ({"path": "another_review.json"}, {"rating_max": 4.0}):
        with pytest.raises(UserError, match="holds no data set that was prepared of it"):
            load_interactions(dataclasses.replace(through_tfds(options, tmp_path), **change))


def test_a_changed_file_is_another_data_set(raw, tmp_path):
    path, options = raw()
    load_interactions(through_tfds(options, tmp_path))
    path.write_bytes(path.read_bytes().replace(b'"stars": 4', b'"stars": 3', 1))
    assert load_interactions(through_tfds(options, tmp_path))[0].sha256() == load_interactions(options)[0].sha256()
    names = [folder.parent.name for folder in (tmp_path / "tfds").glob("*/*/1.0.0")]
    assert len(names) == 2
    path.unlink()
    with pytest.raises(UserError, match="2 prepared data sets that could be meant") as error:
        load_interactions(through_tfds(options, tmp_path))
    assert all(name in str(error.value) for name in names)


def test_prepared_twice_the_same_bytes(raw, tmp_path):
    for name in ("yelp", "table"):
        _, options = raw(name)
        for folder in ("one", "other"):
            load_interactions(dataclasses.replace(options, tfds_dir=str(tmp_path / name / folder)))
        compared = filecmp.dircmp(tmp_path / name / "one", tmp_path / name / "other")
        files = [
            str(file.relative_to(compared.left)) for file in (tmp_path / name / "one").rglob("*.*") if file.is_file()
        ]
        assert len(files) > 5
        assert filecmp.cmpfiles(compared.left, compared.right, files, shallow=False)[0] == files


def test_the_api_of_tfds(raw, tmp_path):
    path, options = raw("amazon of 2014")
    config = tfds.download.DownloadConfig(manual_dir=path.parent, max_shard_size=700)
    asked = {"data_dir": tmp_path / "tfds", "download_and_prepare_kwargs": {"download_config": config}}
    rows = tfds.data_source("amazon_reviews/2014_Baby", split="train", **asked)
    expected = load_interactions(options)[1]
    assert len(rows) == expected.kept + expected.duplicates
    good = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines() if line[:6] == b'{"revi']
    good = [row for row in good if row["reviewerID"] and "a" not in row and row["overall"] != 9]
    assert [row["user_id"].decode() for row in rows] == [row["reviewerID"] for row in good]  # in file order
    assert (rows[0]["text"], rows[6]["text"]) == (b"good", b"")  # a title without a body is a missing text
    assert (rows[3]["rating"], rows[3]["timestamp"][()]) == (1.0, 1_400_000_001.0)
    assert np.isnan(rows[2]["rating"])
    assert [file.name for file in sorted(the_only(tmp_path).glob("*array_record*"))][:2] == [
        f"amazon_reviews-train.array_record-{k:05}-of-{len(list(the_only(tmp_path).glob('*array_record*'))):05}"
        for k in range(2)
    ]
    # A run reads a data set that was prepared by hand in several files.
    assert load_interactions(through_tfds(options, tmp_path))[0].sha256() == load_interactions(options)[0].sha256()
    path.write_bytes(gzip.compress(json_lines(amazon_row, 20)))  # a changed file is another data set
    assert len(tfds.data_source("amazon_reviews/2014_Baby", split="train", **asked)) == 23
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("builder", BUILDERS)
def test_a_builder_describes_itself(builder, tmp_path):
    assert tfds.builder_cls(builder.name) is builder
    for name, config in builder.builder_configs.items():
        assert re.fullmatch(r"[\w.-]+", name)
        assert config.description
    made = builder(data_dir=tmp_path)
    assert str(made.version) in made.release_notes
    assert set(made.info.features) >= {"user_id", "item_id", "rating", "timestamp", "text"}
    assert made.info.description
    assert builder.MANUAL_DOWNLOAD_INSTRUCTIONS
    if builder is not ReviewTable:
        assert made.info.citation.startswith("@")
        assert made.info.homepage.startswith("https://")
    assert not any(tmp_path.iterdir())
    for wrong in (lambda: builder(data_dir=tmp_path, file_format="tfrecord"),
                  lambda: made.download_and_prepare(file_format="tfrecord")):  # fmt: skip
        with pytest.raises(ValueError, match="array_record"):
            wrong()


def test_amazon_has_every_category():
    assert {year: len(release.categories.split()) for year, release in RELEASES.items()} == {
        "2014": 24, "2018": 29, "2023": 34,
    }  # fmt: skip
    assert AmazonReviews.builder_configs["2023_Books"].files == ("Books.jsonl.gz", "Books.jsonl")


def test_the_metadata_of_a_prepared_data_set(raw, tmp_path):
    path, options = raw("amazon of 2023")
    load_interactions(through_tfds(options, tmp_path))
    config = AmazonReviews.config_for(path)
    assert config.name.startswith(f"2023_Gift_Cards-{config.sha256[:16]}-")
    for builder in (AmazonReviews(config=config, data_dir=tmp_path / "tfds"),
                    tfds.builder_from_directory(the_only(tmp_path))):  # fmt: skip
        assert builder.info.metadata["rejected"] == {
            "invalid JSON": 1, "lone surrogate": 1, "no user": 1, "not a JSON object": 1, "rating outside 1..5": 1
        }  # fmt: skip
        assert builder.info.metadata["sha256"] == config.sha256
        assert builder.info.splits["train"].num_examples == 43
        assert "hou2024bridging" in builder.info.citation
        assert "he2016ups" not in builder.info.citation
        assert builder.info.disable_shuffling
    other = AmazonReviews.config_for(path, rating_range=(0.0, 5.0))
    assert other.sha256 == config.sha256
    assert other.name != config.name


def test_records_are_those_of_tfds(raw, tmp_path):
    _, options = raw("table")
    load_interactions(through_tfds(options, tmp_path))
    columns = {name: column for name, column in WIDE.items() if column}
    builder = ReviewTable(config=ReviewsConfig("x", columns=columns), data_dir=tmp_path)
    made = tfds.builder_from_directory(the_only(tmp_path))
    serialiser = ExampleSerializer(builder.info.features.get_serialized_info())
    for row in made.as_data_source("train"):
        row = dict(row, timestamp=row["timestamp"][()])
        theirs = serialiser.serialize_example(builder.info.features.encode_example(row))
        ours = records.encode(row)
        assert tf_example_pb2.Example.FromString(ours) == tf_example_pb2.Example.FromString(theirs)
        assert records.encode(row) == ours
    assert row["vectors"]["image"].tolist() == [29.0, 0.5]
    assert row["split"] == 2


def damage(what, folder):
    (file,) = folder.glob("*.array_record-*")
    content = file.read_bytes()
    if what == "cut":
        file.write_bytes(content[:-50])
    elif what == "flipped":
        file.write_bytes(content.replace(b"2014", b"2015") if b"2014" in content else bytes(255 - b for b in content))
    elif what == "lost":
        file.unlink()
    elif what == "half a quarantine":
        (folder / QUARANTINE).write_bytes(b'{"line": 1, "reason": "x"}\n')
    elif what == "no object":
        (folder / "metadata.json").write_text("[]")
    elif what == "another class":
        described = json.loads((folder / "features.json").read_text())
        (folder / "features.json").write_text(json.dumps(described | {"pythonClassName": "antigravity.Feature"}))
    else:
        (folder / what).write_text("{torn")


@pytest.mark.parametrize(
    "what",
    ["cut", "flipped", "lost", "half a quarantine", "no object", "another class", "metadata.json", "dataset_info.json",
     "features.json", QUARANTINE],
)  # fmt: skip
@pytest.mark.parametrize("with_raw", [True, False])
def test_damage_is_reported_in_one_line(raw, tmp_path, what, with_raw):
    path, options = raw()
    load_interactions(through_tfds(options, tmp_path))
    damage(what, the_only(tmp_path))
    if not with_raw:
        path.unlink()
    with pytest.raises(UserError, match="the prepared data set is damaged") as error:
        load_interactions(through_tfds(options, tmp_path))
    assert str(the_only(tmp_path)) in str(error.value)
    assert "\n" not in str(error.value)
    if with_raw:
        shutil.rmtree(the_only(tmp_path))  # as the message says
        assert load_interactions(through_tfds(options, tmp_path))[0].sha256() == load_interactions(options)[0].sha256()


def test_an_unfinished_preparation_is_not_used(raw, tmp_path, monkeypatch):
    path, options = raw()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(_Part, "close", full)
        with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
            load_interactions(through_tfds(options, tmp_path))
    config = YelpReviews.config_for(path).name
    assert list((tmp_path / "tfds" / "yelp_reviews" / config).iterdir()) == []
    (tmp_path / "tfds" / "yelp_reviews" / config / "incomplete.ABCDEF_1.0.0").mkdir()  # left by a killed process
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(UserError, match="holds no data set"):
        load_interactions(through_tfds(options, tmp_path))
    path.write_bytes(content)
    assert load_interactions(through_tfds(options, tmp_path))[0].sha256() == load_interactions(options)[0].sha256()


def test_another_process_may_be_faster(raw, tmp_path, monkeypatch):
    _, options = raw()
    prepare = YelpReviews.download_and_prepare

    def late(self, **given):
        prepare(self, **given)
        raise OSError(39, "Directory not empty")

    monkeypatch.setattr(YelpReviews, "download_and_prepare", late)
    assert load_interactions(through_tfds(options, tmp_path))[0].sha256() == load_interactions(options)[0].sha256()


def test_folders_and_files_that_are_refused(raw, tmp_path):
    path, options = raw()
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    wrong = {
        "data.tfds_dir should be a folder": {"tfds_dir": str(tmp_path / "file")},
        "data.tfds_dir cannot be written": {"tfds_dir": str(tmp_path / "file" / "below")},
        "no file here is named yelp_academic": {"path": str(tmp_path / "empty"), "tfds_dir": str(tmp_path / "empty")},
        "data.path is not set": {"path": None, "tfds_dir": str(tmp_path / "nowhere")},
        "only data.format=amazon|yelp|table": {"format": "movielens", "tfds_dir": str(tmp_path)},
    }
    for message, changes in wrong.items():
        with pytest.raises(UserError, match=re.escape(message)) as error:
            load_interactions(dataclasses.replace(options, **changes))
        assert "\n" not in str(error.value)
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "raw" / "reviews_Baby_5.json").write_bytes(json_lines(amazon_row))
    by_hand = AmazonReviews(data_dir=tmp_path / "tfds", config="2014_Baby")
    for folder in ("empty", "nowhere"):
        with pytest.raises(UserError, match=r"no file here is named reviews_Baby_5\.json\.gz or"):
            by_hand.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=tmp_path / folder))
    pinned = YelpReviews(data_dir=tmp_path / "tfds", config=YelpReviews.config_for(path))
    path.write_bytes(b"{}\n")
    with pytest.raises(UserError, match="not the file of the config"):
        pinned.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=path.parent))


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n[]\n"])
def test_a_file_without_a_good_row(raw, tmp_path, content):
    path, options = raw()
    path.write_bytes(content)
    messages = []
    for given in (options, through_tfds(options, tmp_path)):
        with pytest.raises(UserError) as error:
            load_interactions(given, tmp_path / "q")
        messages.append((str(error.value), (tmp_path / "q").read_bytes()))
    assert messages[0] == messages[1]
    if content:
        builder = YelpReviews(data_dir=tmp_path / "by hand")
        with pytest.raises(UserError, match="no row of the file is good"):
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=path.parent))


def test_the_readers_own_mistakes_stay_what_they_are(raw, tmp_path):
    _, options = raw("tripadvisor")
    for changes in ({"columns": HOTELS | {"user": "who"}}, {"rating_max": None}, {"columns": {"user": "author"}}):
        given = dataclasses.replace(options, **changes)
        messages = []
        for route in (given, through_tfds(given, tmp_path)):
            with pytest.raises(UserError) as error:
                load_interactions(route)
            messages.append(str(error.value))
        assert messages[0] == messages[1]


def test_nothing_is_imported_before_it_is_needed():
    check = "import sys, drex_jax.data.load, drex_jax.data.tfds; sys.exit('tensorflow_datasets' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("tensorflow")

"""Every format on good rows, and on every kind of bad row."""

import csv
import gzip
import io
import json
import math
import os
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drex_jax.common.errors import UserError
from drex_jax.data.load import DataSettings, load_interactions
from drex_jax.data.readers import find, lines, parquet
from drex_jax.data.readers.fields import MAX_TEXT_BYTES
from drex_jax.data.readers.quarantine import Quarantine

AMAZON = {
    "2014": {"reviewerID": "u", "asin": "i", "overall": 4.0, "reviewText": "b", "summary": "t", "unixReviewTime": 1e9},
    "2023": {"user_id": "u", "parent_asin": "i", "rating": 4, "text": "b", "title": "t", "timestamp": 10**12},
}
YELP = {"user_id": "u", "business_id": "i", "stars": 4, "text": "b", "date": "2001-09-09 01:46:40"}
COLUMNS = {"user": "u", "item": "i", "rating": "r", "timestamp": "t", "text": "x"}


def write_json(path, rows):
    path.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    return str(path)


def read(format, path, tmp_path, **options):
    options = {"max_bad_share": 1.0, **options}
    interactions, report = load_interactions(DataSettings(format, str(path), **options), tmp_path / "quarantine.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_bytes().splitlines()]
    assert report.rows_read == report.kept + report.duplicates + report.rejected
    assert len(lines) == report.rejected == sum(report.by_reason.values())
    return interactions, report, lines


def only(interactions):
    assert len(interactions) == 1
    rating = float(interactions.rating[0])
    return interactions.user_ids[0], interactions.item_ids[0], rating, interactions.timestamp[0], interactions.text[0]


@pytest.mark.parametrize("release", AMAZON)
def test_amazon_releases(tmp_path, release):
    path = write_json(tmp_path / "reviews.json", [AMAZON[release]])
    interactions, _, _ = read("amazon", path, tmp_path)
    assert only(interactions) == ("u", "i", 4.0, 1e9, "t\nb")
    assert interactions.rating_range == (1.0, 5.0)


@pytest.mark.parametrize(("body", "text"), [("b", "t\nb"), ("", ""), (" \n", ""), (None, "")])
def test_a_review_without_a_body_is_a_missing_text(tmp_path, body, text):
    path = write_json(tmp_path / "reviews.json", [AMAZON["2014"] | {"reviewText": body}])
    assert only(read("amazon", path, tmp_path)[0])[4] == text


@pytest.mark.parametrize(
    ("date", "time"), [("2001-09-09 01:46:40", 1e9), ("2001-09-09", 1e9 - 6400), ("1969-12-31", -86400)]
)
def test_yelp_dates(tmp_path, date, time):
    path = write_json(tmp_path / "yelp_academic_dataset_review.json", [YELP | {"date": date}])
    assert only(read("yelp", tmp_path, tmp_path)[0]) == ("u", "i", 4.0, time, "b")
    assert read("yelp", path, tmp_path)[1].rows_read == 1


BAD_FIELDS = [
    ("user", None, "no user"),
    ("user", "  ", "no user"),
    ("user", 1.5, "user is neither a string nor an integer"),
    ("user", True, "user is neither a string nor an integer"),
    ("user", "a\x00b", "NUL byte in the user"),
    ("user", "x" * 2000, "user id above 1,024 bytes"),
    ("item", "", "no item"),
    ("item", ["i"], "item is neither a string nor an integer"),
    ("rating", "five", "rating is not a number"),
    ("rating", "4", "rating is not a number"),
    ("rating", True, "rating is not a number"),
    ("rating", 5.5, "rating outside 1..5"),
    ("rating", 0, "rating outside 1..5"),
    ("rating", 10**30, "rating outside 1..5"),
    ("text", 5, "text is not a string"),
    ("text", "a\x00b", "NUL byte in the text"),
    ("text", "x" * (MAX_TEXT_BYTES + 1), "text above 1,000,000 bytes"),
    ("text", "é" * (MAX_TEXT_BYTES // 2 + 1), "text above 1,000,000 bytes"),
]
NAMES = {
    "2014": {"user": "reviewerID", "item": "asin", "rating": "overall", "text": "reviewText"},
    "2023": {"user": "user_id", "item": "parent_asin", "rating": "rating", "text": "text"},
    "yelp": {"user": "user_id", "item": "business_id", "rating": "stars", "text": "text"},
}


@pytest.mark.parametrize("format", NAMES)
@pytest.mark.parametrize(("field", "value", "reason"), BAD_FIELDS, ids=range(len(BAD_FIELDS)))
def test_bad_fields(tmp_path, format, field, value, reason):
    good = YELP if format == "yelp" else AMAZON[format]
    path = write_json(tmp_path / "file.json", [good, good | {NAMES[format][field]: value}])
    _, report, lines = read("yelp" if format == "yelp" else "amazon", path, tmp_path)
    assert report.by_reason == {reason: 1}
    assert report.kept == 1
    assert (lines[0]["file"], lines[0]["line"], lines[0]["reason"]) == (path, 2, reason)
    assert len(json.dumps(lines[0])) < 600


@pytest.mark.parametrize(
    ("time", "reason"),
    [
        (None, "no time"),
        ("1000000000", "time is not a number"),
        (True, "time is not a number"),
        (1e12, "time outside 1900..2200"),
        (-1e12, "time outside 1900..2200"),
    ],
)
def test_bad_amazon_times(tmp_path, time, reason):
    rows = [AMAZON["2014"], AMAZON["2014"] | {"unixReviewTime": time}]
    assert read("amazon", write_json(tmp_path / "f", rows), tmp_path)[1].by_reason == {reason: 1}


@pytest.mark.parametrize(
    ("date", "reason"),
    [
        ("", "no time"),
        (None, "no time"),
        (20010909, "time is not a date"),
        ("2001-02-30", "time is not a date"),
        ("yesterday", "time is not a date"),
        ("0001-01-01", "time outside 1900..2200"),
        ("2999-01-01", "time outside 1900..2200"),
    ],
)
def test_bad_yelp_dates(tmp_path, date, reason):
    assert read("yelp", write_json(tmp_path / "f", [YELP, YELP | {"date": date}]), tmp_path)[1].by_reason == {reason: 1}


def test_a_ten_megabyte_review_and_other_bad_lines_never_stop_a_file(tmp_path):
    good = [YELP | {"user_id": f"u{n}"} for n in range(3)]
    bad = [YELP | {"text": "x" * 10_000_000}, b'{"user_id": "u", "busi', b'{"user_id": "\xff"}', b'{"text": "\\udc00"}']
    path = write_json(tmp_path / "f", [good[0], *bad, good[1], good[2]])
    interactions, report, lines = read("yelp", path, tmp_path)
    assert len(interactions) == 3
    assert [line["line"] for line in lines] == [2, 3, 4, 5]
    assert list(report.by_reason) == sorted(
        ["line above 8,000,000 bytes", "invalid JSON", "invalid UTF-8", "lone surrogate"]
    )


def test_missing_ratings_and_texts_are_no_error(tmp_path):
    rows = [{"reviewerID": n, "asin": 7, "unixReviewTime": n, "overall": None} for n in range(3)] + [
        {"reviewerID": 4, "asin": 7, "unixReviewTime": 9, "summary": "title only"}
    ]
    interactions, report, _ = read("amazon", write_json(tmp_path / "f", rows), tmp_path)
    assert report.rejected == 0
    assert not interactions.has_rating.any()
    assert not interactions.has_text.any()
    assert interactions.rating_range is None
    assert list(interactions.user_ids) == ["0", "1", "2", "4"]


@pytest.mark.parametrize("packed", [False, True])
def test_movielens_with_tags(tmp_path, packed):
    ratings = "userId,movieId,rating,timestamp\r\n1,10,4.5,1000\r\n2,10,0.5,2000\r\n1,11,3,3000\r\n"
    tags = (
        'userId,movieId,tag,timestamp\n1,10,at once,1000\n1,10,"first, with comma",500\n1,10,too late,1001\n'
        "3,10,nobody rated,1\n2,10,é,2000\n1,10,,5\n"
    )
    for name, text in (("ratings.csv", ratings), ("tags.csv", tags)):
        data = text.encode()
        (tmp_path / (name + ".gz" * packed)).write_bytes(gzip.compress(data) if packed else data)
    interactions, report, lines = read("movielens", tmp_path, tmp_path)
    assert list(interactions.text) == ["first, with comma, at once", "é", ""]
    assert interactions.rating.tolist() == [4.5, 0.5, 3.0]
    assert interactions.rating_range == (0.5, 5.0)
    assert report.by_reason == {"empty tag": 1}
    assert lines[0]["line"] == 7
    assert "3 of 5 tags" in report.notices[0]


def test_movielens_with_more_tags_than_a_review_has_words(tmp_path):
    """Every rating of a pair would repeat them, so two small files could make a large table."""
    ratings = "".join(f"1,10,4.5,{1000 + n}\n" for n in range(50))
    tags = "".join(f"1,10,{'x' * 800},{1000 + n}\n" for n in range(50))
    for name, text in (("ratings.csv", ratings), ("tags.csv", tags)):
        (tmp_path / name).write_text(text)
    interactions, report, _ = read("movielens", tmp_path, tmp_path)
    assert (interactions.text.lengths > 0).tolist() == [True] * 25 + [False] * 25
    assert interactions.text.lengths.max() == 25 * 800 + 24 * 2
    assert report.kept == 50


def test_movielens_bad_rows(tmp_path):
    bad = {
        "1,2,x,5": "rating is not a number",
        "1,2,nan,5": "rating is not finite",
        "1,2,6,5": "rating outside 0.5..5",
        ",2,3,5": "no user",
        "1,b,3,5": "item is not a number below 2^31",
        "1,2,3": "wrong number of fields",
        "1,2,3,": "no time",
        "1,2,3,inf": "time outside 1900..2200",
    }
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,3,4\n" + "\n".join(bad))
    _, report, lines = read("movielens", tmp_path, tmp_path)
    assert [line["reason"] for line in lines] == list(bad.values())
    assert [line["line"] for line in lines] == list(range(3, 3 + len(bad)))
    assert report.kept == 1


def test_movielens_100k(tmp_path):
    (tmp_path / "u.data").write_text("196\t242\t3\t881250949\n186\t302\t5\t891717742\n1\t2\t0.5\t3\n")
    interactions, report, _ = read("movielens", tmp_path, tmp_path)
    assert list(interactions.user_ids) == ["196", "186"]
    assert report.by_reason == {"rating outside 1..5": 1}


ROWS = [("a", "x", 20.0, 5, "one"), ("b", "x", 0.0, 6, "two\nlines"), ("a", "y", None, 7, "")]


def table(path, kind):
    rows = [dict(zip("uirtx", row, strict=True)) for row in ROWS]
    if kind == "jsonl":
        return write_json(path, rows)
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return str(path)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list("uirtx"), delimiter={"csv": ",", "tsv": "\t", "semicolon": ";"}[kind])
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(b"\xef\xbb\xbf" + buffer.getvalue().encode())
    return str(path)


def test_a_category_counts_for_what_its_rows_take_not_for_all_its_names_in_every_batch(tmp_path, monkeypatch):
    names = [f"user{number:06}" for number in range(20_000)]
    rows = np.random.default_rng(0).integers(0, len(names), 40_000)
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"user": pa.DictionaryArray.from_arrays(pa.array(rows), pa.array(names))}), path)
    monkeypatch.setattr(lines, "EXPANDS_FREELY", 0)
    monkeypatch.setattr(lines, "MAX_EXPANSION", 4)
    users = [row["user"] for _, row in parquet.rows(path, ("user",), Quarantine())]
    assert users == [names[row] for row in rows]
    monkeypatch.setattr(lines, "MAX_EXPANSION", 1)
    with pytest.raises(UserError, match="times as large"):
        list(parquet.rows(path, ("user",), Quarantine()))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["csv", "tsv", "semicolon", "jsonl", "parquet"])
def test_table_kinds_agree(tmp_path, kind, packed):
    path = table(tmp_path / "no_suffix", kind)
    if packed and kind != "parquet":
        (tmp_path / "no_suffix").write_bytes(gzip.compress((tmp_path / "no_suffix").read_bytes()))
    interactions, report, _ = read("table", path, tmp_path, columns=COLUMNS, rating_min=0, rating_max=100)
    assert report.rejected == 0
    assert list(interactions.text) == [row[4] for row in ROWS]
    np.testing.assert_array_equal(interactions.rating, np.array([20, 0, np.nan], np.float32))
    assert interactions.timestamp.tolist() == [5, 6, 7]
    assert interactions.rating_range == (0, 100)


@pytest.mark.parametrize(
    ("value", "time_format", "time"),
    [
        ("1000", "", 1000.0),
        (1000.5, "", 1000.5),
        ("2001-09-09T03:46:40+02:00", "", 1e9),
        ("2001-09-09T01:46:40Z", "", 1e9),
        (1_000_000_500, "ms", 1_000_000.5),
        ("09/09/2001", "%d/%m/%Y", 1e9 - 6400),
        (20010909, "%Y%m%d", 1e9 - 6400),
    ],
)
def test_table_times(tmp_path, value, time_format, time):
    path = write_json(tmp_path / "f", [{"u": 1, "i": 2, "t": value}])
    columns = {"user": "u", "item": "i", "timestamp": "t", "rating": "", "text": ""}
    interactions, _, _ = read("table", path, tmp_path, columns=columns, time_format=time_format)
    assert interactions.timestamp.tolist() == [time]


@pytest.mark.parametrize("time_format", ["%Q", "%", "%Y %Y", "(((", "%d.%m.", "%H:%M"])
def test_a_time_format_that_is_none_or_tells_no_year(tmp_path, time_format):
    path = write_json(tmp_path / "f", [{"u": 1, "i": 2, "t": "1.2."}])
    columns = {"user": "u", "item": "i", "timestamp": "t", "rating": "", "text": ""}
    with pytest.raises(UserError, match=f"data.time_format='{re.escape(time_format)}'"):
        read("table", path, tmp_path, columns=columns, time_format=time_format)


@pytest.mark.parametrize("kind", ["timestamp", "date"])
def test_parquet_times_categories_and_invalid_text(tmp_path, kind):
    time = pa.array([10**9] * 2, pa.timestamp("s")).cast(
        pa.timestamp("ns") if kind == "timestamp" else pa.date32(), safe=False
    )
    text = pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, 2, 4], np.int32)), pa.py_buffer(b"ok\xff\xfe"))
    users = pa.array(["a", "b"]).dictionary_encode()
    pq.write_table(pa.table({"u": users, "i": pa.array([1, 2]), "t": time, "x": text}), tmp_path / "f")
    columns = COLUMNS | {"rating": ""}
    interactions, report, lines = read("table", tmp_path / "f", tmp_path, columns=columns)
    assert only(interactions)[::3] == ("a", 1e9 if kind == "timestamp" else 1e9 - 6400)
    assert report.by_reason == {"invalid UTF-8 in the text": 1}
    assert lines[0]["line"] == 2


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_table_vectors_and_split(tmp_path, kind):
    rows = [
        {"u": "a", "i": "x", "t": 1, "s": "train", "v": [1.0, 2.0]},
        {"u": "b", "i": "x", "t": 2, "s": "valid", "v": None},
        {"u": "c", "i": "x", "t": 3, "s": "2", "v": [3.0]},
        {"u": "d", "i": "x", "t": 4, "s": "2", "v": [3.0, 4.0]},
        {"u": "e", "i": "x", "t": 4, "s": "other", "v": [3.0, 4.0]},
    ]
    path = write_json(tmp_path / "f", rows)
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    columns = {"user": "u", "item": "i", "timestamp": "t", "split": "s", "image": "v"}
    interactions, report, _ = read("table", path, tmp_path, columns=columns)
    np.testing.assert_array_equal(interactions.vectors["image"], [[1, 2], [math.nan, math.nan], [3, 4]])
    assert interactions.given_split.tolist() == [0, 1, 2]
    assert report.rejected == 2


def test_csv_numbers_and_bytes_that_are_wrong(tmp_path):
    bad = {
        b"a,x,nan,1,t": "rating is not finite",
        b"a,x,inf,1,t": "rating is not finite",
        b"a,x,1_0,1,t": "rating is not a number",
        b"a,x,101,1,t": "rating outside 0..100",
        b"a,x,1,soon,t": "time is not a date",
        b"a,x,1,nan,t": "time outside 1900..2200",
        b"a,x,1,1,\xff": "invalid UTF-8 in the text",
        b"a,x,1,1,\x00": "NUL byte in the text",
        b"a,x,1,1": "wrong number of fields",
        b'a,x,1,1,"t"t': "malformed quoting",
        b'a,x,1,1,"t': "quoted field without an end",
    }
    (tmp_path / "f.csv").write_bytes(b"u,i,r,t,x\r\na,x,1,1,t\r\n" + b"\r\n".join(bad))
    _, report, lines = read("table", tmp_path / "f.csv", tmp_path, columns=COLUMNS, rating_min=0, rating_max=100)
    assert [line["reason"] for line in lines] == list(bad.values())
    assert report.kept == 1


@pytest.mark.parametrize(
    ("format", "data", "word"),
    [
        ("amazon", b"user,item\n1,2\n", "reviewerID"),
        ("amazon", b'{"a": 1}\n{"b": 2}\n', "no user (2)"),
        ("amazon", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20, "reviewerID"),
        ("amazon", b"", "is empty"),
        ("amazon", b"\n\n", "no rows"),
        ("amazon", gzip.compress(b"", mtime=0), "no rows"),
        ("yelp", b'{"user_id": "u"}\n', "business_id"),
        ("movielens", b'{"user_id": "u"}\n', "userId"),
        ("table", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20, "CSV"),
        ("table", b'[{"u": 1}]', "JSON array"),
        ("table", b"u,i,r,t,text\n1,2,3,4,5\n", "no column named 'x'"),
        ("table", b'{"u": "a", "i": "b", "r": 3, "t": 4}\n', "the key 'x' (data.columns.text)"),
        ("table", b"u,i,r,t,x,x\n1,2,3,4,5\n", "more than one column named 'x'"),
        ("table", b"PAR1 but not really", "Parquet"),
        ("table", b"u,i,r,t,x\n", "no rows"),
    ],
)
def test_wrong_files(tmp_path, format, data, word):
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        read(format, path, tmp_path, columns=COLUMNS, rating_min=1, rating_max=5)
    assert word in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("format", ["amazon", "yelp", "movielens", "table"])
def test_wrong_places(tmp_path, format):
    for path, word in ((None, "not set"), (tmp_path / "absent", "no such file"), (tmp_path, "no file here")):
        with pytest.raises(UserError, match=word):
            load_interactions(
                DataSettings(format, None if path is None else str(path), columns=COLUMNS, rating_min=1, rating_max=5)
            )


def test_a_path_that_no_file_can_have(tmp_path):
    with pytest.raises(UserError, match="xxx: cannot be read"):
        load_interactions(DataSettings(format="amazon", path=str(tmp_path / ("x" * 300))))


def test_more_than_one_candidate(tmp_path):
    for name in ("A.json", "B.json.gz", "meta_A.json"):
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(UserError, match=r"\(A\.json, B\.json\.gz\)"):
        load_interactions(DataSettings("amazon", str(tmp_path)))


def test_table_needs_a_scale_and_ids(tmp_path):
    path = table(tmp_path / "f", "csv")
    with pytest.raises(UserError, match="rating_min"):
        load_interactions(DataSettings("table", path, columns=COLUMNS))
    with pytest.raises(UserError, match=r"columns\.user"):
        load_interactions(DataSettings("table", path, columns=COLUMNS | {"user": ""}, rating_min=0, rating_max=5))


def test_a_damaged_parquet_page_keeps_the_rows_before(tmp_path):
    n = 60_000
    rng = np.random.default_rng(0)
    columns = {
        "u": pa.array(rng.integers(0, 2**60, n)),
        "i": pa.array(rng.integers(0, 2**60, n)),
        "t": pa.array(range(n)),
    }
    pq.write_table(pa.table(columns), tmp_path / "f", row_group_size=20_000, use_dictionary=False)
    data = bytearray((tmp_path / "f").read_bytes())
    middle = int(len(data) * 0.6)
    data[middle : middle + 40_000] = b"\xff" * 40_000
    (tmp_path / "f").write_bytes(data)
    columns = {"user": "u", "item": "i", "timestamp": "t"}
    try:
        _, report, _ = read("table", tmp_path / "f", tmp_path, columns=columns)
    except UserError:
        pytest.fail("the rows before the damage were lost")
    assert report.kept >= 16_384


def test_a_pipe_is_no_file(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="a pipe or a device, and it is read more than once"):
        find.find_file(pipe, ("*.csv",), "a table")

"""Lines decoded as columns, compared with the same lines decoded one by one; blocks decoded by worker processes."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drex_jax.common.cache import Store
from drex_jax.data import strings
from drex_jax.data.load import DataSettings, load_interactions
from drex_jax.data.readers import amazon, json_decode, json_reviews, lines, yelp
from drex_jax.data.readers.quarantine import Quarantine
from drex_jax.data.strings import Strings

ORDINARY = {
    "yelp": {"user_id": "u", "business_id": "i", "stars": 4.0, "text": "good", "date": "2014-10-11 03:34:02"},
    "amazon": {"reviewerID": "u", "asin": "i", "overall": 4, "summary": "t", "reviewText": "b", "unixReviewTime": 9},
}
ODD: dict[str, list[Any]] = {
    "user": [None, "", " ", 7, 1.5, True, "a\x00b", "é", "x" * 2000, ["u"]],
    "time": [None, "2014-02-31 00:00:00", "2014-10-11", "2014-10-11T03:34:02", "2014-10-11 24:00:00", 4, 10**30, -1.5,
             "1066-10-14 09:00:00", "2014-1x-11 03:34:02", True],
    "rating": [None, "", "4", 0, 5.5, 3, True, 10**400],
    "text": [None, "", " \n", "é\u2028", "a\x00b", 7, "x" * 1_000_001],
    "title": [None, "", " ", 3, "\ud800"],
}  # fmt: skip
FORMATS = {"yelp": yelp.FORMAT, "amazon": amazon.FORMAT}


def line_of(name: str, side: str, value: Any) -> bytes:
    row, keys = dict(ORDINARY[name]), FORMATS[name].keys(ORDINARY[name])
    row[getattr(keys, side)] = value
    return json.dumps(row).encode()


def decoded(block: bytes, name: str) -> tuple[list[tuple[Any, ...]], list[json_decode.Rejected]]:
    chunk, rejected = json_decode.reviews_of(json_decode.decode(block, FORMATS[name], (1.0, 5.0)))
    sides = (chunk.user, chunk.item, chunk.timestamp.tolist(), [str(value) for value in chunk.rating], chunk.text)
    return list(zip(*sides, strict=True)), rejected


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("side", ODD)
def test_an_unusual_value_is_decoded_as_in_a_single_row(name: str, side: str) -> None:
    if side == "title" and name == "yelp":
        pytest.skip("no titles there")
    for value in ODD[side]:
        common = json.dumps(ORDINARY[name]).encode()
        line = line_of(name, side, value)
        good, rejected = decoded(b"\n".join([common, line, b"", common]), name)
        try:
            expected, reason = [FORMATS[name].check(lines.parsed(line), (1.0, 5.0))], None
        except lines.BadField as bad:
            expected, reason = [], bad.reason
        assert len(good) == 2 + len(expected)
        assert [(row.line, row.reason) for row in rejected] == ([] if expected else [(1, reason)])
        for user, item, seconds, rating, text, *_ in expected:
            assert good[1] == (user.decode(), item.decode(), seconds, str(np.float32(rating)), text.decode())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([(side, n) for side in ODD for n in range(len(ODD[side]))]), max_size=4), st.data())
def test_columns_equal_rows_checked_one_by_one(odd: list[tuple[str, int]], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(FORMATS)))
    block = [json.dumps(ORDINARY[name] | {"extra": number}).encode() for number in range(data.draw(st.integers(0, 5)))]
    block += [line_of(name, side, ODD[side][number]) for side, number in odd if (name, side) != ("yelp", "title")]
    block += data.draw(st.lists(st.sampled_from([b"", b"\r", b"{", b"[1]", b"\xff"])))
    run, scale = list(data.draw(st.permutations(block))), (1.0, 5.0)
    once = json_decode._at_once(run, FORMATS[name], scale) if run else None
    if once is not None:
        slowly, rejected = json_decode._one_by_one(run, FORMATS[name], scale)
        assert not rejected
        for side in ("user", "item", "text"):
            assert list(getattr(once, side)) == list(getattr(slowly, side))
        np.testing.assert_array_equal(once.timestamp, slowly.timestamp)
        np.testing.assert_array_equal(once.rating, slowly.rating)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=12)), st.integers(0, 40), st.booleans())
def test_blocks_of_whole_lines_hold_the_lines(tmp_path_factory: Any, parts: list[bytes], size: int, torn: bool) -> None:
    path = tmp_path_factory.mktemp("lines") / "file"
    content = b"\n".join(parts)
    packed = gzip.compress(content)
    path.write_bytes(packed[:-9] if torn else content if content[:2] != b"\x1f\x8b" else packed)
    with pytest.MonkeyPatch.context() as patch, Quarantine() as of_blocks, Quarantine() as of_lines:
        patch.setattr(lines, "BLOCK_BYTES", 5)
        blocks = list(lines.whole_lines(path, of_blocks, size))
        whole = list(lines.Lines(path, of_lines, skip_blank=False))
    read = [line for _, block in blocks for line in block.split(b"\n")]
    if not torn:
        assert b"\n".join(block for _, block in blocks) == content.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n")
        ends = np.cumsum([block.count(b"\n") + 1 for _, block in blocks])
        assert [number for number, _ in blocks] == [1, *(1 + ends[:-1])][: len(blocks)]
    assert [line for line in read if line] == [line for _, line in whole if line]
    assert (of_blocks.by_reason, of_blocks.notices) == (of_lines.by_reason, of_lines.notices)


def test_a_line_that_is_too_long_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 20)
    monkeypatch.setattr(lines, "BLOCK_BYTES", 7)
    path = tmp_path / "file"
    path.write_bytes(b"short\n" + b"x" * 1000 + b"\nshort\n" + b"y" * 21 + b"\n" + b"z" * 20 + b"\n" + b"w" * 500)
    with Quarantine() as quarantine:
        read = b"\n".join(block for _, block in lines.whole_lines(path, quarantine, 3)).split(b"\n")
    assert [len(line) for line in read] == [5, 21, 5, 21, 20, 21]


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(json_reviews, "BLOCK_BYTES", 4000)
    monkeypatch.setattr(lines, "BLOCK_BYTES", 1000)
    rows = [ORDINARY["yelp"] | {"user_id": f"u{n % 7}", "text": f"nr {n}", "stars": n % 6} for n in range(100)]
    path = tmp_path / "yelp_academic_dataset_review.json"
    path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    return path


def test_worker_processes_read_the_same_as_one_process(large: Path, tmp_path: Path) -> None:
    options = DataSettings("yelp", str(large), max_bad_share=1.0)
    alone, report = load_interactions(options, tmp_path / "alone.jsonl")
    assert report.rejected == 17
    store = Store(tmp_path / "store")
    for _ in range(2):
        together, _ = load_interactions(options, tmp_path / "together.jsonl", store.arrays)
        assert together.sha256() == alone.sha256()
        assert (tmp_path / "together.jsonl").read_bytes() == (tmp_path / "alone.jsonl").read_bytes()
    kept = sorted(path for path in (tmp_path / "store").rglob("*.arrays"))
    assert len(kept) >= 2
    kept[0].write_bytes(b"damaged")
    kept[1].unlink()
    assert load_interactions(options, None, store.arrays)[0].sha256() == alone.sha256()


def test_a_dead_worker_process_is_replaced(large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_reviews, "_begin", os.abort)
    options = DataSettings("yelp", str(large), max_bad_share=1.0)
    interactions = load_interactions(options, None, Store(tmp_path / "store").arrays)[0]
    assert interactions.sha256() == load_interactions(options)[0].sha256()


def test_large_columns_are_memory_mapped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(strings, "MAP_FROM_BYTES", 10)
    monkeypatch.setattr(strings, "_TAKE_ROWS", 3)
    parts = [Strings.of(words.split("/")) for words in ("a/bb//ccc", "", "dd/é", "e" * 9)]
    flat = [word for part in parts for word in part]
    rows = np.array([7, 0, 0, 3, 5, 2, 6, 4, 1])
    gathered = strings.gather(parts, rows, tmp_path)
    assert isinstance(gathered.data, np.memmap)
    assert list(gathered) == [flat[row] for row in rows]
    assert not list(tmp_path.iterdir())
    assert list(strings.gather([], np.zeros(0, int))) == []
    assert list(parts[0].take(np.array([3, 2]))) == ["ccc", ""]

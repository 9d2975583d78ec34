"""Metadata of three releases as texts; bad lines go to the quarantine; nothing is executed."""

import gzip
import json

import pytest

from drex_jax.common.errors import UserError
from drex_jax.data.mmrec_build import item_metadata
from drex_jax.data.readers.quarantine import Quarantine

WANTED = {b"A1", b"A2", b"A3"}
OF_2014 = {
    "asin": "A1",
    "title": "Soft &amp; warm",
    "related": {"also_bought": ["X"]},
    "brand": "Owl",
    "categories": [["Baby", "Bedding"], ["Home"]],
    "description": "It\u2019s  a\n\tblanket",
}
OF_2018 = {"description": ["First.", "Second."], "category": ["Baby"], "brand": "", "title": "Cup", "asin": "A2"}
OF_2023 = {"parent_asin": "A3", "asin": "B3", "title": "Bib", "store": "Shop", "categories": [], "description": []}


def read(path, lines):
    path.write_bytes(b"\n".join(lines))
    quarantine = Quarantine()
    return item_metadata.texts(path, WANTED, quarantine), quarantine


def test_three_releases(tmp_path):
    lines = [repr(OF_2014).encode(), json.dumps(OF_2018).encode(), json.dumps(OF_2023).encode()]
    texts, quarantine = read(tmp_path / "meta", lines)
    assert texts == {
        b"A1": "Soft & warm Owl Baby Bedding Home It\u2019s a blanket",
        b"A2": "Cup Baby First. Second.",
        b"A3": "Bib Shop",
    }
    assert quarantine.rejected == 0
    assert read(tmp_path / "meta.gz", [gzip.compress(b"\n".join(lines))])[0] == texts


def test_lists_nested_too_deep(tmp_path):
    deep = b'{"asin": "A1", "title": ' + b"[" * 1000 + b'"x"' + b"]" * 1000 + b"}"
    texts, quarantine = read(tmp_path / "meta", [deep, json.dumps(OF_2018).encode()])
    assert list(texts) == [b"A2"]
    assert dict(quarantine.by_reason) == {"nested too deep": 1}


def test_what_is_passed_over(tmp_path):
    lines = [
        b"{'asin': 'A2', 'title': None}",
        b"{'asin': 'X', this is not even looked at",
        b"{'asin': 'A1', 'title': 'first'}",
        b"{'asin': 'A1', 'title': 'second'}",
        b'{"asin": "Y", "title": "unwanted"}',
        b"{'title': 'half a pair \\ud83d and \\/', 'asin': 'A3'}",
    ]
    texts, quarantine = read(tmp_path / "meta", lines)
    assert texts == {b"A1": "first", b"A3": "half a pair ? and \\/"}
    assert quarantine.rejected == 0


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{'asin': 'A1', 'title': open('x')}", "neither JSON nor a Python literal"),
        (b"__import__('os').getcwd()", "neither JSON nor a Python literal"),
        (b"{'asin': 'A1', 'title': 'torn", "neither JSON nor a Python literal"),
        (b"{'asin': 'A1', 'title': \xff}", "neither JSON nor a Python literal"),
        (b"(" * 100_000, "neither JSON nor a Python literal"),
        (b"{'title': 'no item'}", "no asin"),
        (b"{'asin': 7}", "no asin"),
        (b"['asin']", "no asin"),
        (b"{'title': '" + b"x" * 1_000_001 + b"'}", "Python literal above"),
        (b"{'title': '" + b"x" * 8_000_001 + b"'}", "line above"),
    ],
)
def test_bad_lines_are_counted_with_their_reason(tmp_path, line, reason):
    path = tmp_path / "meta"
    path.write_bytes(b"\n".join([repr(OF_2014).encode(), line]))
    with Quarantine(tmp_path / "quarantine.jsonl") as quarantine:
        texts = item_metadata.texts(path, WANTED, quarantine)
    assert list(texts) == [b"A1"]
    rejected = json.loads((tmp_path / "quarantine.jsonl").read_text())
    assert rejected["line"] == 2
    assert rejected["reason"].startswith(reason)
    with pytest.raises(UserError, match=f"{path}: no line is metadata"):
        read(path, [line])

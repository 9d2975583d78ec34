"""Make good files, which are then damaged: small ones of every format, and the first lines of real ones."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pathlib
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 12  # rows of a file that is made here
HEAD = 1 << 11  # bytes taken from a real file


def review(number: int) -> dict[str, Any]:
    return {"user": f"u{number % 3}", "item": f"i{number % 4}", "rating": 1 + number % 5, "text": f"it holds {number}"}


def json_lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def yelp_row(number: int) -> dict[str, Any]:
    row, date = review(number), f"2014-10-{10 + number} 03:34:0{number % 10}"
    return {
        "user_id": row["user"],
        "business_id": row["item"],
        "stars": row["rating"],
        "text": row["text"],
        "date": date,
    }


def amazon_row(number: int) -> dict[str, Any]:
    row = review(number)
    if number % 2:
        return {
            "user_id": row["user"], "parent_asin": row["item"], "rating": row["rating"], "text": row["text"],
            "title": "good", "timestamp": 1_400_000_000_000 + number,
        }  # fmt: skip
    return {
        "reviewerID": row["user"], "asin": row["item"], "overall": row["rating"], "reviewText": row["text"],
        "summary": "good", "unixReviewTime": 1_400_000_000 + number,
    }  # fmt: skip


def table_row(number: int) -> dict[str, Any]:
    return {**review(number), "timestamp": 1.4e9 + number, "split": number % 3, "image": [0.5, number]}


def separated(rows: list[dict[str, Any]], delimiter: str, named: bool = True) -> bytes:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    if named:
        writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()


def parquet(rows: list[dict[str, Any]], **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, **options)
    return sink.getvalue()


def real(*names: str) -> list[bytes]:
    """Return the first lines of real files below DREX_JAX_DATA, if it is set."""
    found = []
    for name in names:
        path = pathlib.Path(os.environ.get("DREX_JAX_DATA", os.devnull), name)
        if path.is_file():
            with gzip.open(path) if name.endswith(".gz") else path.open("rb") as file:
                found.append(file.read(HEAD).rpartition(b"\n")[0] + b"\n")
    return found


def with_packed(seeds: list[bytes]) -> list[bytes]:
    return [*seeds, gzip.compress(seeds[0], mtime=0)]

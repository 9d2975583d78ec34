"""Amazon product reviews (McAuley lab), JSON lines, plain or gzip.

Releases of 2014 and 2018: `reviewerID asin overall reviewText summary unixReviewTime` (seconds). Release of 2023:
`user_id parent_asin rating text title timestamp` (milliseconds). A row is of 2023 if it has `user_id`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from drex_jax.data.chunk import Chunk, ChunkBuilder
from drex_jax.data.quarantine import Quarantine
from drex_jax.data.readers import fields, files
from drex_jax.data.readers.lines import json_rows

EXPECTED = (
    "Amazon reviews as JSON lines with reviewerID asin overall unixReviewTime (2014, 2018) "
    "or user_id parent_asin rating timestamp (2023)"
)
RATING_RANGE = (1.0, 5.0)


def find(path: str | Path | None) -> Path:
    """The review file at a path or in a folder; files named meta_* are no reviews."""
    patterns = ("*.json", "*.jsonl")
    return files.find(path, patterns, EXPECTED, keep=lambda name: not name.startswith(("meta_", ".")))


def read(path: Path, rating_range: tuple[float, float], quarantine: Quarantine) -> Iterator[Chunk]:
    """Chunks of the reviews in file order; text is the title, a line break and the body (`fields.titled_review`)."""
    low, high = rating_range
    builder = ChunkBuilder()
    for line, row in json_rows(path, quarantine):
        try:
            if "user_id" in row:
                builder.add(
                    fields.identifier(row["user_id"], "user"),
                    fields.identifier(row.get("parent_asin"), "item"),
                    fields.seconds(row.get("timestamp"), per_second=1000),
                    fields.rating(row.get("rating"), low, high),
                    fields.titled_review(row.get("title"), row.get("text")),
                )
            else:
                builder.add(
                    fields.identifier(row.get("reviewerID"), "user"),
                    fields.identifier(row.get("asin"), "item"),
                    fields.seconds(row.get("unixReviewTime")),
                    fields.rating(row.get("overall"), low, high),
                    fields.titled_review(row.get("summary"), row.get("reviewText")),
                )
        except fields.BadField as bad:
            quarantine.reject(path, line, bad.reason, bad.value)
        if builder.full:
            yield builder.take()
    yield builder.take()

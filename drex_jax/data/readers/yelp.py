"""The Yelp Open Dataset's `yelp_academic_dataset_review.json`, JSON lines, plain or gzip.

Dates are `YYYY-MM-DD` (older releases) or `YYYY-MM-DD HH:MM:SS`; they carry no zone and are taken as UTC.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from drex_jax.data.chunk import Chunk, ChunkBuilder
from drex_jax.data.quarantine import Quarantine
from drex_jax.data.readers import fields, files
from drex_jax.data.readers.lines import json_rows

EXPECTED = "yelp_academic_dataset_review.json (or .gz): JSON lines with user_id business_id stars text date"
RATING_RANGE = (1.0, 5.0)


def find(path: str | Path | None) -> Path:
    """The review file at a path or in a folder."""
    return files.find(path, ("yelp_academic_dataset_review.json",), EXPECTED)


def read(path: Path, rating_range: tuple[float, float], quarantine: Quarantine) -> Iterator[Chunk]:
    """Chunks of the reviews in file order."""
    low, high = rating_range
    builder = ChunkBuilder()
    for line, row in json_rows(path, quarantine):
        try:
            builder.add(
                fields.identifier(row.get("user_id"), "user"),
                fields.identifier(row.get("business_id"), "item"),
                fields.date(row.get("date")),
                fields.rating(row.get("stars"), low, high),
                fields.review(row.get("text")),
            )
        except fields.BadField as bad:
            quarantine.reject(path, line, bad.reason, bad.value)
        if builder.full:
            yield builder.take()
    yield builder.take()

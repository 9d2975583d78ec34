"""Amazon product reviews (McAuley lab), JSON lines, plain or gzip.

The releases of 2014 and 2018 have `reviewerID asin overall reviewText summary unixReviewTime` (seconds), the release of
2023 has `user_id parent_asin rating text title timestamp` (milliseconds). A row with `user_id` is of 2023.

The text is the title, a line break and the body (`drex_jax.data.readers.fields.titled_review`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drex_jax.data.readers.find import find_file
from drex_jax.data.readers.json_decode import Format, Keys

EXPECTED = (
    "Amazon reviews as JSON lines with reviewerID asin overall unixReviewTime (2014, 2018) "
    "or user_id parent_asin rating timestamp (2023)"
)
RATING_RANGE = (1.0, 5.0)


def find(path: str | Path | None) -> Path:
    """Return the review file at a path or in a folder; files named meta_* are not reviews."""
    patterns = ("*.json", "*.jsonl")
    return find_file(path, patterns, EXPECTED, keep=lambda name: not name.startswith(("meta_", ".")))


def _keys(row: dict[str, Any]) -> Keys:
    return OF_2023 if "user_id" in row else BEFORE


BEFORE = Keys("reviewerID", "asin", "unixReviewTime", "overall", "reviewText", "summary")
OF_2023 = Keys("user_id", "parent_asin", "timestamp", "rating", "text", "title", per_second=1000)
FORMAT = Format("amazon", _keys)

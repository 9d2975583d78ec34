"""The Yelp Open Dataset's `yelp_academic_dataset_review.json`, JSON lines, plain or gzip.

Dates are `YYYY-MM-DD` (older releases) or `YYYY-MM-DD HH:MM:SS`; they have no time zone and are read as UTC.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drex_jax.data.readers.find import find_file
from drex_jax.data.readers.json_decode import Format, Keys

EXPECTED = "yelp_academic_dataset_review.json (or .gz): JSON lines with user_id business_id stars text date"
RATING_RANGE = (1.0, 5.0)


def find(path: str | Path | None) -> Path:
    """Return the review file at a path or in a folder."""
    return find_file(path, ("yelp_academic_dataset_review.json",), EXPECTED)


def _keys(row: dict[str, Any]) -> Keys:
    return KEYS


KEYS = Keys("user_id", "business_id", "date", "stars", "text", per_second=0)
FORMAT = Format("yelp", _keys)

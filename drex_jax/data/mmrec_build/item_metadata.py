"""Read Amazon metadata files (McAuley lab) as one text for each item.

The releases of 2018 and 2023 are JSON lines. The lines of 2014 are Python literals, which are parsed as literals and
never executed. Field names: `asin` or `parent_asin`; `title`; `brand` or `store`; `categories` or `category`;
`description`.
"""

from __future__ import annotations

import ast
import html
import re
import warnings
from collections.abc import Container
from pathlib import Path
from typing import Any

import orjson

from drex_jax.common.errors import UserError
from drex_jax.data.readers.fields import BadField
from drex_jax.data.readers.lines import TOO_LONG, Lines
from drex_jax.data.readers.quarantine import Quarantine

MAX_LITERAL_BYTES = 1_000_000  # a parsed literal takes hundreds of times its length
FIELDS = (("title",), ("brand", "store"), ("categories", "category"), ("description",))
_ASIN_FIRST = re.compile(rb"\s*\{'asin': '([^'\\]*)'")
_NOT_A_LITERAL = (ValueError, SyntaxError, TypeError, RecursionError, MemoryError)


def texts(path: Path, wanted: Container[bytes], quarantine: Quarantine) -> dict[bytes, str]:
    """Return the text of each wanted item in the file: title, brand, categories and description, joined by spaces.

    (This is the order of MMRec.) If an item occurs twice, the first row counts. Items without any text are left out.

    Args:
      path: the metadata, plain or gzip.
      wanted: ids of items; other items are skipped.
      quarantine: receives bad lines.

    Raises:
      UserError: the file cannot be read, or none of its lines is metadata.
    """
    text_by_item: dict[bytes, str] = {}
    good = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a literal with an invalid escape
        for number, line in Lines(path, quarantine):
            first = _ASIN_FIRST.match(line or b"")
            if first and first[1] not in wanted:
                good += 1
                continue
            try:
                name, text = _row(line)
            except BadField as bad:
                quarantine.reject(path, number, bad.reason, bad.value)
                continue
            good += 1
            if text and name in wanted:
                text_by_item.setdefault(name, text)
    if not good:
        raise UserError(
            f"{path}: no line is metadata; expected a JSON object or a Python literal on each line, with asin title "
            "brand categories description"
        )
    return text_by_item


def _row(line: bytes | None) -> tuple[bytes, str]:
    """Return the item and the text of a line. Raises `BadField` if there is no item."""
    if line is None:
        raise BadField(TOO_LONG)
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        if len(line) > MAX_LITERAL_BYTES:
            raise BadField(f"Python literal above {MAX_LITERAL_BYTES:,} bytes") from None
        try:
            row = ast.literal_eval(line.decode())
        except _NOT_A_LITERAL as error:
            raise BadField("neither JSON nor a Python literal", str(error)) from None
    name = row.get("parent_asin", row.get("asin")) if type(row) is dict else None
    if type(name) is not str or not name:
        raise BadField("no asin", row)
    try:
        return name.encode("utf-8", "replace"), text_of(row)
    except RecursionError:
        raise BadField("nested too deep", name) from None


def text_of(row: dict[str, Any]) -> str:
    """Return the text of one row: nested lists are flattened, entities resolved, and white space is single.

    >>> text_of({"title": "Red  shoe", "categories": [["Baby", "Shoes"]], "description": "soft &amp; warm"})
    'Red shoe Baby Shoes soft & warm'
    """
    parts = [_flat(next((row[name] for name in names if row.get(name)), "")) for names in FIELDS]
    text = " ".join(html.unescape(" ".join(parts)).split())
    return text.encode("utf-8", "replace").decode()  # a literal can hold a lone surrogate


def _flat(value: object) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(_flat, value))
    return value if isinstance(value, str) else ""

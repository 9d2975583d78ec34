"""Define a target of fuzzing, and count the rows of a file independently of the package."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Callable
from typing import NamedTuple

from drex_jax.common.errors import UserError
from tools.robustness.fuzzing.mutations import BOM, GZIP


class Target(NamedTuple):
    """A target of fuzzing: code that reads input.

    Attributes:
      seeds: good inputs, from which bad ones are made.
      check: reads one input. An AssertionError means that a row was lost; any other exception is a crash.
    """

    seeds: list[bytes]
    check: Callable[[bytes], None]


def require_words(error: UserError) -> None:
    """Check that an error has a message."""
    assert str(error).strip(), "refused without a word"


def content_of(data: bytes) -> bytes | None:
    """Return the content of a file without a byte order mark, or None for a broken gzip file."""
    if not data.startswith(GZIP):
        return data.removeprefix(BOM)
    content = b""
    while data:
        member = zlib.decompressobj(31)
        try:
            content += member.decompress(data)
        except zlib.error:
            return None
        if not member.eof:
            return None
        data = member.unused_data.lstrip(b"\x00")
    return content.removeprefix(BOM)


def count_json(content: bytes) -> int:
    """Return the number of rows of JSON lines."""
    return sum(bool(line.strip()) for line in content.split(b"\n"))


def count_records(content: bytes, delimiter: str, width: int | None = None) -> int | None:
    """Return the number of records with `width` fields (None: records after a header).

    The result is None if quotes make the number uncertain.
    """
    text = content.decode("utf-8", "surrogateescape")
    header = width is None
    if '"' not in text:
        lines = [line for line in text.split("\n") if not (line + "\n").isspace()]
        return max(len(lines) - header, 0)
    try:
        records = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error:
        return None
    widths = {len(record) for record in records}
    sure = len(widths) == 1 and "\r" not in text and (min(widths) > 1 if header else widths == {width})
    return len(records) - header if sure else None

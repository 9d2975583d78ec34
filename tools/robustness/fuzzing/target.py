"""Something that reads input, and how many rows a file has by another count than the reader's."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Callable
from typing import NamedTuple

from drex_jax.common.errors import UserError
from tools.robustness.fuzzing.mutations import BOM, GZIP


class Target(NamedTuple):
    """Something that reads.

    Attributes:
      seeds: good inputs, of which bad ones are made.
      check: reads one input. Raises AssertionError where a row was lost; any other exception is a crash.
    """

    seeds: list[bytes]
    check: Callable[[bytes], None]


def require_words(error: UserError) -> None:
    """A refusal says why."""
    assert str(error).strip(), "refused without a word"


def content_of(data: bytes) -> bytes | None:
    """What is in a file, without a byte order mark; None of a broken gzip file."""
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
    """How many rows there are."""
    return sum(bool(line.strip()) for line in content.split(b"\n"))


def count_records(content: bytes, delimiter: str, width: int | None = None) -> int | None:
    """How many records of a width there are, or after a header; None where quotes leave that open."""
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

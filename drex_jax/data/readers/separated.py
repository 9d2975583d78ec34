"""Read the records of CSV and TSV files (RFC 4180: quoted fields may hold separators, doubled quotes and line breaks).

A missing closing quote swallows all rows up to the next quote. So after a malformed record its later lines are read
again as separate records, and only its first line is lost. If none of the later lines is a record, they belong to the
one malformed record. The lines read again are limited: once more was read again than the file had so far (in a file
made so that every line opens a quote), a line is a record by itself or it is lost.
"""

from __future__ import annotations

import collections
import csv
from collections.abc import Iterator

from drex_jax.common.foreign_messages import is_unfinished_quote
from drex_jax.data.readers.lines import MAX_LINE_BYTES, Lines
from drex_jax.data.readers.quarantine import Quarantine

UNFINISHED = "quoted field without an end"
_Line = tuple[int, str | None]  # number and text of a line; None for a line that is too long


class _RecordError(Exception):
    """A line of a record, or the whole record, is too long."""


class _Feed:
    """The lines for `csv.reader`: remembers the lines of the current record, and can repeat lines."""

    def __init__(self, lines: Lines):
        self._lines = iter(lines)
        self._again: collections.deque[_Line] = collections.deque()
        self.taken: list[_Line] = []
        self._size = 0
        self._credit = MAX_LINE_BYTES  # bytes that may be read again

    def __iter__(self) -> _Feed:
        return self

    def begin(self) -> None:
        """A new record starts at the next line."""
        self.taken = []
        self._size = 0

    def give_back(self, lines: list[_Line]) -> bool:
        """Repeat these lines next. Return False, and repeat nothing, if too many lines were repeated already."""
        if self._credit < 0:
            return False
        self._credit -= self._size
        self._again.extendleft(reversed(lines))
        return True

    def __next__(self) -> str:
        while True:
            if self._again:
                number, text = self._again.popleft()
            else:
                number, line = next(self._lines)
                self._credit += len(line or b"")
                # A bad byte becomes a lone surrogate, which fails its row in `fields`.
                text = None if line is None else line.decode("utf-8", "surrogateescape") + "\n"
            if text is None or self.taken or not text.isspace():  # skip blank lines between records
                break
        self.taken.append((number, text))
        if text is None:
            raise _RecordError(f"line above {MAX_LINE_BYTES:,} bytes")
        self._size += len(text)
        if self._size > MAX_LINE_BYTES:
            raise _RecordError(f"record above {MAX_LINE_BYTES:,} bytes")
        return text


def records(
    lines: Lines, delimiter: str, quarantine: Quarantine, width: int | None = None
) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of every well-formed record; the others go to the quarantine.

    Args:
      lines: the file, read with skip_blank=False so that blank lines inside quotes stay.
      delimiter: one character.
      quarantine: receives malformed records, by their first line.
      width: number of fields of a record; None: that of the first record, which is the header.
    """
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    feed = _Feed(lines)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.begin()
        fault, fields = None, []
        try:
            fields = next(reader)
        except StopIteration:
            return
        except _RecordError as error:
            fault = str(error)
        except csv.Error as error:
            fault = UNFINISHED if is_unfinished_quote(error) else "malformed quoting"
        if fault is None and width is None:
            width = len(fields)
        if fault is None and len(fields) == width:
            yield feed.taken[0][0], fields
            continue
        first, *later = feed.taken
        separate = any(_alone(text, delimiter, width) for _, text in later)
        if fault == UNFINISHED and lines.torn and not separate:
            continue  # the record is cut by the tear, which the quarantine records itself
        quarantine.reject(lines.path, first[0], fault or "wrong number of fields", None if fault else len(fields))
        if not separate:
            continue
        reader = csv.reader(feed, delimiter=delimiter, strict=True)
        if feed.give_back(later):
            continue
        for number, text in later:
            alone = _alone(text, delimiter, width)
            if alone:
                yield number, alone
            elif text is None or not text.isspace():
                quarantine.reject(lines.path, number, fault or "wrong number of fields")


def _alone(text: str | None, delimiter: str, width: int | None) -> list[str]:
    """Return the fields of a line that is a complete record; an empty list for any other line."""
    if text is None:
        return []
    try:
        fields = next(csv.reader([text], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return []
    return fields if len(fields) == width else []

"""The lines of a file, plain or gzip, in bounded memory; damage ends a file early and loses nothing before it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import orjson

from drex_jax.common.errors import UserError
from drex_jax.common.progress import progress_bar
from drex_jax.data.readers.fields import BadField
from drex_jax.data.readers.quarantine import Quarantine

MAX_LINE_BYTES = 8_000_000  # escapes can make a line of JSON six times as long as the text it holds
TOO_LONG = f"line above {MAX_LINE_BYTES:,} bytes"
BLOCK_BYTES = 1 << 20
MAX_EXPANSION = 200  # times that a file may have been made smaller; text becomes 3 to 20 times smaller, tables 50
EXPANDS_FREELY = 256 << 20  # bytes, however small the file is
_COMPRESSED_BYTES = 1 << 16
_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


class TornError(Exception):
    """A gzip stream ends early or is damaged; all that could be read was yielded before."""


class Lines:
    """Iterates over (line number from 1, line without its line feed); the line is None where it is above 8 MB.

    Gzip is told by its first bytes, not by the name. A byte order mark is dropped, blank lines are skipped, and a
    carriage return stays (JSON and CSV both ignore it). A gzip that ends early or is damaged gives its whole lines,
    then goes to the quarantine as one tear. Raises `UserError` if the file cannot be read.
    """

    def __init__(self, path: Path, quarantine: Quarantine, skip_blank: bool = True):
        self.path = path
        self.torn = False
        self._quarantine = quarantine
        self._skip_blank = skip_blank

    def __iter__(self) -> Iterator[tuple[int, bytes | None]]:
        number, tail, too_long = 1, b"", False
        try:
            for block in blocks(self.path):
                *whole, rest = block.split(b"\n")
                for line in whole:
                    if tail or too_long:
                        line, tail = tail + line, b""
                    if too_long or len(line) > MAX_LINE_BYTES:
                        too_long = False
                        yield number, None
                    elif not self._skip_blank or not (not line or line.isspace()):
                        yield number, line
                    number += 1
                if too_long:
                    continue
                tail += rest
                if len(tail) > MAX_LINE_BYTES:
                    tail, too_long = b"", True
        except TornError as torn:
            self.torn = True
            self._quarantine.tear(self.path, number, str(torn))
            return
        if too_long:
            yield number, None
        elif tail and not (self._skip_blank and tail.isspace()):
            yield number, tail


def whole_lines(path: Path, quarantine: Quarantine, size: int) -> Iterator[tuple[int, bytes]]:
    """(number of the first line, from 1, lines without the last line feed), at least `size` bytes at a time.

    Of a line above 8 MB there is as much as shows it to be too long. A gzip that ends early or is damaged gives its
    whole lines, then goes to the quarantine as one tear. Raises `UserError` if the file cannot be read.
    """
    number, parts, held, torn, why = 1, [], 0, False, ""
    tail = 0  # bytes of the line that has no end yet
    try:
        for block in blocks(path):
            end = block.rfind(b"\n")
            if end < 0:
                block = block[: max(0, MAX_LINE_BYTES + 1 - tail)]
                parts.append(block)
                held, tail = held + len(block), tail + len(block)
                continue
            parts.append(_without_surplus(block, tail))
            held += len(block)
            tail = len(block) - end - 1
            if held - tail > size:
                lines, _, rest = b"".join(parts).rpartition(b"\n")
                yield number, lines
                number += lines.count(b"\n") + 1
                parts, held = [rest], len(rest)
    except TornError as error:
        torn, why = True, str(error)
    lines = b"".join(parts)
    whole = lines.count(b"\n")
    yield number, lines.rpartition(b"\n")[0] if torn else lines
    if torn:
        quarantine.tear(path, number + whole, why)


def _without_surplus(block: bytes, tail: int) -> bytes:
    """A block that ends a line of which there are `tail` bytes before it, without what makes that line too long."""
    first = block.index(b"\n")
    surplus = tail + first - MAX_LINE_BYTES - 1
    return block if surplus <= 0 else block[: max(0, first - surplus)] + block[first:]


def blocks(path: Path) -> Iterator[bytes]:
    """The bytes of a file in blocks of at most 1 MB, uncompressed if they are gzip, without a byte order mark.

    Raises:
      TornError: after the last good byte of a gzip that ends early or is damaged.
      UserError: the file cannot be read, or is a gzip that expands beyond measure.
    """
    try:
        with (
            path.open("rb") as file,
            progress_bar(f"reading {path.name}", path.stat().st_size, "B", unit_scale=True) as bar,
        ):
            head = file.read(2)
            file.seek(0)
            source = _inflate(file) if head == _GZIP_MAGIC else iter(lambda: file.read(BLOCK_BYTES), b"")
            start: bytes | None = b""  # what may yet become a mark: members of a gzip may be of a byte
            for block in source:
                if start is not None:
                    start += block
                    if start != _BOM and _BOM.startswith(start):
                        continue
                    block, start = start.removeprefix(_BOM), None
                if block:
                    yield block
                bar.update(file.tell() - bar.n)
            if start:
                yield start
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _inflate(file: BinaryIO) -> Iterator[bytes]:
    """The bytes of the gzip members of a binary file, one after the other.

    Raises:
      TornError: after the last good byte.
      UserError: they are so many more than the file's that it must have been made to fill memories and disks.
    """
    member, pending, inflated = zlib.decompressobj(31), b"", 0
    while True:
        if not pending:
            pending = file.read(_COMPRESSED_BYTES)
            if not pending:
                if member is not None:
                    raise TornError("the gzip stream stops before its end")
                return
        if member is None:
            pending = pending.lstrip(b"\x00")  # padding, as tapes and some tools leave it
            if not pending:
                continue
            member = zlib.decompressobj(31)
        before = member.copy()
        try:
            block = member.decompress(pending, BLOCK_BYTES)
        except zlib.error as error:
            yield from _up_to_damage(before, pending)
            raise TornError("the gzip stream is damaged") from error
        inflated += len(block)
        require_measure(file.name, inflated, file.tell())
        if block:
            yield block
        if member.eof:
            pending, member = member.unused_data, None
        else:
            pending = member.unconsumed_tail


def require_measure(name: str, expanded: int, size: int) -> None:
    """Makes sure that a compressed file was not made to fill memories and disks.

    Args:
      name: the file's.
      expanded: how many bytes it has given so far.
      size: of how many of its own.

    Raises:
      UserError: they are beyond all measure.
    """
    if expanded > max(EXPANDS_FREELY, MAX_EXPANSION * size):
        raise UserError(
            f"{name}: uncompressed it is more than {MAX_EXPANSION} times as large, at {expanded:,} bytes, and read no "
            "further; if it is what it should be, store it uncompressed"
        )


def _up_to_damage(member, pending: bytes) -> Iterator[bytes]:
    """What `pending` holds before the byte at which it can no longer be uncompressed."""
    for position in range(len(pending)):
        try:
            block = member.decompress(pending[position : position + 1])
        except zlib.error:
            return
        if block:
            yield block


def json_rows(path: Path, quarantine: Quarantine) -> Iterator[tuple[int, dict]]:
    """(line number, object) of a file of JSON lines; every other line goes to the quarantine."""
    for number, line in Lines(path, quarantine):
        try:
            if line is None:
                raise BadField(TOO_LONG)
            yield number, parsed(line)
        except BadField as bad:
            quarantine.reject(path, number, bad.reason, bad.value)


def parsed(line: bytes) -> dict:
    """The JSON object that a line is. Raises `BadField`."""
    if len(line) > MAX_LINE_BYTES:
        raise BadField(TOO_LONG)
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise BadField(_fault(line, str(error)), str(error)) from None
    if type(row) is not dict:
        raise BadField("not a JSON object", row)
    return row


def _fault(line: bytes, message: str) -> str:
    if b"\x00" in line:
        return "NUL byte"
    try:
        line.decode()
    except UnicodeDecodeError:
        return "invalid UTF-8"
    return "lone surrogate" if "surrogate" in message else "invalid JSON"

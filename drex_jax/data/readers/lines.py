"""Read the lines of a file, plain or gzip, in bounded memory; damage ends a file early, earlier lines are kept."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from drex_jax.common.errors import UserError
from drex_jax.common.foreign_messages import is_lone_surrogate
from drex_jax.common.progress import progress_bar
from drex_jax.data.readers.fields import BadField
from drex_jax.data.readers.quarantine import TORN, Quarantine

MAX_LINE_BYTES = 8_000_000  # JSON escapes can make a line six times as long as its text
TOO_LONG = f"line above {MAX_LINE_BYTES:,} bytes"
BLOCK_BYTES = 1 << 20
MAX_EXPANSION = 200  # highest compression ratio that is accepted; text has 3 to 20, tables 50
EXPANDS_FREELY = 256 << 20  # uncompressed bytes that are accepted at any ratio
_COMPRESSED_BYTES = 1 << 16
_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


class TornError(Exception):
    """A gzip stream ends early or is damaged; everything that could be read was yielded before."""


class Lines:
    """Iterates over (line number from 1, line without its line feed); a line above 8 MB is None.

    Gzip is recognised by its first bytes, not by the name. A byte order mark is removed, blank lines are skipped, and a
    carriage return stays (JSON and CSV both ignore it). A gzip file that ends early or is damaged yields its whole
    lines, and then the quarantine records one tear. Raises `UserError` if the file cannot be read.
    """

    def __init__(self, path: Path, quarantine: Quarantine, skip_blank: bool = True):
        self.path = path
        self.torn = False
        self._quarantine = quarantine
        self._skip_blank = skip_blank

    def __iter__(self) -> Iterator[tuple[int, bytes | None]]:
        tears = self._quarantine.by_reason[TORN]
        for first, block in whole_lines(self.path, self._quarantine, BLOCK_BYTES):
            for number, line in enumerate(block.split(b"\n"), first):
                if len(line) > MAX_LINE_BYTES:
                    yield number, None
                elif not self._skip_blank or not (not line or line.isspace()):
                    yield number, line
        self.torn = self._quarantine.by_reason[TORN] > tears


def whole_lines(path: Path, quarantine: Quarantine, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield (number of the first line, from 1, lines without the last line feed), about `size` bytes at a time.

    A line above 8 MB is cut just behind that length. A gzip file that ends early or is damaged yields its whole lines,
    and then the quarantine records one tear. Raises `UserError` if the file cannot be read.
    """
    number, parts, held, why = 1, [], 0, ""
    tail = 0  # bytes of the last line, which has no end yet
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
        why = str(error)
    lines = b"".join(parts)
    if why:
        lines = lines[: lines.rfind(b"\n") + 1]
    if lines:
        yield number, lines.removesuffix(b"\n")
    if why:
        quarantine.tear(path, number + lines.count(b"\n"), why)


def _without_surplus(block: bytes, tail: int) -> bytes:
    """Return a block without the bytes that make its first line, of which `tail` bytes came before, too long."""
    first = block.index(b"\n")
    surplus = tail + first - MAX_LINE_BYTES - 1
    return block if surplus <= 0 else block[: max(0, first - surplus)] + block[first:]


def blocks(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file in blocks of at most 1 MB, gzip uncompressed, without a byte order mark.

    Raises:
      TornError: the gzip stream ends early or is damaged; raised after the last good byte.
      UserError: the file cannot be read, or its compression ratio is above the limit.
    """
    try:
        with (
            path.open("rb") as file,
            progress_bar(f"reading {path.name}", path.stat().st_size, "B", unit_scale=True) as bar,
        ):
            head = file.read(2)
            file.seek(0)
            source = _inflate(file) if head == _GZIP_MAGIC else iter(lambda: file.read(BLOCK_BYTES), b"")
            start: bytes | None = b""  # may become a mark: a gzip member can hold a single byte
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
    """Yield the uncompressed bytes of the gzip members of a binary file, one after the other.

    Raises:
      TornError: the stream ends early or is damaged; raised after the last good byte.
      UserError: the compression ratio is above the limit.
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
            pending = pending.lstrip(b"\x00")  # padding, written by tapes and some tools
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
    """Refuse a decompression bomb.

    Args:
      name: name of the file.
      expanded: uncompressed bytes so far.
      size: compressed bytes so far.

    Raises:
      UserError: the compression ratio is above the limit.
    """
    if expanded > max(EXPANDS_FREELY, MAX_EXPANSION * size):
        raise UserError(
            f"{name}: uncompressed it is more than {MAX_EXPANSION} times as large, at {expanded:,} bytes, and read no "
            "further; if it is what it should be, store it uncompressed"
        )


def _up_to_damage(member: Any, pending: bytes) -> Iterator[bytes]:
    """Yield the uncompressed bytes of `pending` up to the first byte that cannot be uncompressed."""
    for position in range(len(pending)):
        try:
            block = member.decompress(pending[position : position + 1])
        except zlib.error:
            return
        if block:
            yield block


def json_rows(path: Path, quarantine: Quarantine) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) of a file of JSON lines; all other lines go to the quarantine."""
    for number, line in Lines(path, quarantine):
        try:
            if line is None:
                raise BadField(TOO_LONG)
            yield number, parsed(line)
        except BadField as bad:
            quarantine.reject(path, number, bad.reason, bad.value)


def parsed(line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line. Raises `BadField` for any other line."""
    if len(line) > MAX_LINE_BYTES:
        raise BadField(TOO_LONG)
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise BadField(_fault(line, error), str(error)) from None
    if type(row) is not dict:
        raise BadField("not a JSON object", row)
    return row


def _fault(line: bytes, error: orjson.JSONDecodeError) -> str:
    if b"\x00" in line:
        return "NUL byte"
    try:
        line.decode()
    except UnicodeDecodeError:
        return "invalid UTF-8"
    return "lone surrogate" if is_lone_surrogate(error) else "invalid JSON"

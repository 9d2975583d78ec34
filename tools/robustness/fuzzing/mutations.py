"""Damage files at random: flipped bytes, moved lines, mixed encodings, odd values, broken gzip streams."""

from __future__ import annotations

import contextlib
import gzip
import random
import re
import zlib
from collections.abc import Callable

BOM = b"\xef\xbb\xbf"
GZIP = b"\x1f\x8b"
MOST = 1 << 14  # largest input in bytes
DEEP = 1000  # depth of nested values: orjson reads them, but recursion in Python fails
VALUES = (  # replacements for a number or a word
    b"", b'""', b"null", b"true", b"NaN", b"Infinity", b"-Infinity", b"0", b"-0", b"-1", b"1e308", b"1e999", b"-1e999",
    b"9" * 400, b"0x10", b"1_0", b"1,5", b"9223372036854775808", b"2147483648", b"1e15", b"[]", b"{}", b"[1, 2]",
    b'"\\ud800"', b'"\\u0000"', b'"\\u2028"', "\u00e9\u3000\u0661".encode(), b"\x00", b"\xff\xfe", b'"', b"'", b"\r",
    b"\t",    b";", b",", b"..", b"../..", b"/etc/passwd", b"1970-01-01", b"9999-12-31T23:59:59+14:00", b"2020-02-30",
    b"[" * DEEP + b"]" * DEEP, b'{"a":' * DEEP + b"1" + b"}" * DEEP, b"[[[[[[[[1]]]]]]]]", b" ", b"\xc2\x85",
)  # fmt: skip
_WORD = re.compile(rb'"[^"\n]{0,40}"|[\w.+-]+')


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Return the bytes of a file after one to four random changes, perhaps inside its gzip stream."""
    packed = data.startswith(GZIP)
    if packed and draw.random() < 0.7:
        with contextlib.suppress(OSError, EOFError, zlib.error):
            return _repacked(mutated(gzip.decompress(data), draw), draw)[:MOST]
    for _ in range(draw.choice((1, 1, 2, 4))):
        data = draw.choice(ACCIDENTS)(data, draw)[:MOST]
    return _repacked(data, draw) if draw.random() < 0.03 else data


def _span(data: bytes, draw: random.Random) -> tuple[int, int]:
    """Return the limits of a random part of the data, which is rarely long."""
    begin = draw.randint(0, len(data))
    return begin, min(len(data), begin + int(draw.paretovariate(0.7)))


def _flip(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 3, 10)) if data else 0):
        changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _overwrite(data: bytes, draw: random.Random) -> bytes:
    begin, end = _span(data, draw)
    return data[:begin] + draw.randbytes(min(end - begin, 64)) + data[end:]


def _insert(data: bytes, draw: random.Random) -> bytes:
    place = draw.randint(0, len(data))
    return data[:place] + draw.choice((draw.choice(VALUES), draw.randbytes(4), BOM)) + data[place:]


def _remove(data: bytes, draw: random.Random) -> bytes:
    begin, end = _span(data, draw)
    return data[:begin] + data[end:]


def _repeat(data: bytes, draw: random.Random) -> bytes:
    begin, end = _span(data, draw)
    return data[:end] + data[begin:end] * draw.choice((1, 2, 50)) + data[end:]


def _cut(data: bytes, draw: random.Random) -> bytes:
    place = draw.randint(0, len(data))
    return data[:place] if draw.random() < 0.8 else data[place:]


def _value(data: bytes, draw: random.Random) -> bytes:
    """Replace a word or a number by another value."""
    found = list(_WORD.finditer(data))
    if not found:
        return _insert(data, draw)
    begin, end = draw.choice(found).span()
    other = draw.choice(found)[0] if draw.random() < 0.3 else draw.choice(VALUES)
    return data[:begin] + other + data[end:]


def _lines(data: bytes, draw: random.Random) -> bytes:
    """Shuffle, repeat, remove or join lines."""
    lines = data.split(b"\n")
    place = draw.randrange(len(lines))
    match draw.randrange(5):
        case 0:
            draw.shuffle(lines)
        case 1:
            lines.insert(place, draw.choice(lines))
        case 2:
            del lines[place]
        case 3:
            lines[place] += lines.pop(draw.randrange(len(lines))) if len(lines) > 1 and place < len(lines) - 1 else b""
        case _:
            lines.insert(place, draw.choice((b"", b" ", b"\r", b"\xe3\x80\x80", b"\x85", b"\x00")))
    return b"\n".join(lines)


def _ends(data: bytes, draw: random.Random) -> bytes:
    """Change the line ends."""
    return data.replace(b"\n", draw.choice((b"\r\n", b"\r", b"\n\n", b"\n\r", b"\xe2\x80\xa8", b"\x00")))


def _encoded(data: bytes, draw: random.Random) -> bytes:
    """Change the encoding of the data, or of their end."""
    place = draw.choice((0, draw.randint(0, len(data))))
    text = data[place:].decode("utf-8", "replace")
    return data[:place] + text.encode(draw.choice(("utf-16", "utf-8-sig", "latin-1", "utf-7", "cp037")), "replace")


def _quoted(data: bytes, draw: random.Random) -> bytes:
    """Put quotes around a part, or insert one quote."""
    begin, end = _span(data, draw)
    return data[:begin] + b'"' + data[begin:end] + draw.choice((b'"', b"", b'""', b'"\n')) + data[end:]


def _keys(data: bytes, draw: random.Random) -> bytes:
    """Add a key to an object, new or a second time."""
    place = data.find(b"{", draw.randint(0, len(data)))
    words = [found for found in _WORD.findall(data) if found.startswith(b'"')] or [b'"a"']
    if place < 0:
        return _value(data, draw)
    return data[: place + 1] + draw.choice(words) + b":" + (draw.choice(VALUES) or b"1") + b"," + data[place + 1 :]


def _repacked(data: bytes, draw: random.Random) -> bytes:
    """Compress the data with gzip: whole, in two members, truncated, with trailing bytes, or damaged."""
    place = draw.randint(0, len(data))
    match draw.randrange(6):
        case 0:
            return gzip.compress(data[:place], 1, mtime=0) + gzip.compress(data[place:], 1, mtime=0)
        case 1:
            packed = gzip.compress(data, 1, mtime=0)
            return packed[: draw.randint(2, len(packed))]
        case 2:
            return gzip.compress(data, 1, mtime=0) + draw.choice((b"\x00" * 9, b"rest", GZIP, draw.randbytes(20)))
        case 3:
            packed = gzip.compress(data, 1, mtime=0)
            return packed[:2] + _flip(packed[2:], draw)
        case _:
            return gzip.compress(data, 1, mtime=0)


ACCIDENTS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip, _overwrite, _insert, _remove, _repeat, _cut, _value, _value, _value, _lines, _lines, _ends, _encoded,
    _quoted, _keys,
)  # fmt: skip

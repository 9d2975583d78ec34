"""A column of strings as two arrays, so that a million reviews are two NumPy arrays and not a million objects."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from drex_jax.common.errors import UserError

_TAKE_ROWS = 1 << 14
MAP_FROM_BYTES = 256 << 20  # less is held in memory


@dataclasses.dataclass(frozen=True)
class Strings:
    """UTF-8 strings end to end, and where each begins.

    Attributes:
      data: uint8 [bytes], possibly memory-mapped.
      offsets: int64 [n + 1]; string i is `data[offsets[i]:offsets[i + 1]]`.
    """

    data: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, values: Iterable[str | bytes]) -> Strings:
        """Strings from Python objects. A `str` with a lone surrogate raises UnicodeEncodeError."""
        encoded = [value if isinstance(value, bytes) else value.encode() for value in values]
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(value) for value in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    @classmethod
    def empty(cls, n: int) -> Strings:
        """As many empty strings."""
        return cls(np.zeros(0, np.uint8), np.zeros(n + 1, np.int64))

    @classmethod
    def concatenate(cls, parts: Sequence[Strings]) -> Strings:
        """All strings of all parts, in order."""
        if not parts:
            return cls.empty(0)
        data = np.concatenate([part.data[part.offsets[0] : part.offsets[-1]] for part in parts])
        lengths = np.concatenate([part.lengths for part in parts])
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return cls(data, offsets)

    def part(self, begin: int, end: int) -> Strings:
        """Strings [begin, end); their bytes are a view, not a copy."""
        offsets = self.offsets[begin : end + 1]
        return Strings(self.data[offsets[0] : offsets[-1]], offsets - offsets[0])

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n]: bytes of each string."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def bytes_at(self, index: int) -> bytes:
        """The bytes of one string."""
        return self.data[self.offsets[index] : self.offsets[index + 1]].tobytes()

    def __getitem__(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(f"string {index} of {len(self)}")
        try:
            return self.bytes_at(index % len(self)).decode()
        except UnicodeDecodeError as error:  # readers let nothing else through: it came from a damaged folder
            raise UserError(
                f"string {index} of {len(self):,} is no UTF-8 ({error}); the run directory is damaged"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def take(self, rows: np.ndarray) -> Strings:
        """The strings at `rows` (int [m]), as a new column."""
        return gather([self], rows)


def gather(parts: Sequence[Strings], rows: np.ndarray, scratch: str | Path | None = None) -> Strings:
    """Strings of several columns as one.

    Args:
      parts: the columns; string i is that of all of them end to end.
      rows: int [m].
      scratch: as for `drex_jax.data.scratch.room`.
    """
    rows = np.asarray(rows, np.int64)
    begins = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    lengths = np.zeros(len(rows), np.int64)
    for block in _blocks(len(rows)):
        for part, places, local in _by_part(begins, rows[block]):
            lengths[block.start + places] = parts[part].offsets[local + 1] - parts[part].offsets[local]
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    data = room(int(offsets[-1]), np.uint8, scratch)
    sources = [np.ascontiguousarray(part.data).data for part in parts]
    for block in _blocks(len(rows)):
        strings: list[memoryview] = [memoryview(b"")] * (block.stop - block.start)
        for part, places, local in _by_part(begins, rows[block]):
            own, source = parts[part].offsets, sources[part]
            spans = zip(places.tolist(), own[local].tolist(), own[local + 1].tolist(), strict=True)
            for place, begin, end in spans:
                strings[place] = source[begin:end]
        data[offsets[block.start] : offsets[block.stop]] = np.frombuffer(b"".join(strings), np.uint8)
    return Strings(data, offsets)


def _blocks(n: int) -> Iterator[slice]:
    return (slice(first, min(first + _TAKE_ROWS, n)) for first in range(0, n, _TAKE_ROWS))


def _by_part(begins: np.ndarray, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(part, places in `rows`, numbers in the part) of each part that has some of `rows`."""
    part = np.searchsorted(begins, rows, "right") - 1
    order = np.argsort(part, kind="stable")
    cuts = np.flatnonzero(np.diff(part[order])) + 1
    for places in np.split(order, cuts) if len(rows) else ():
        number = int(part[places[0]])
        yield number, places, rows[places] - begins[number]


def room(count: int, dtype: type, folder: str | Path | None = None) -> np.ndarray:
    """An array [count] to be written: in memory or, where it is large, mapped from a file without a name.

    Args:
      count: of its elements.
      dtype: theirs.
      folder: where such a file has its place, which the array's end frees; None: that of temporary files.
    """
    if count * np.dtype(dtype).itemsize < MAP_FROM_BYTES:
        return np.empty(count, dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.truncate(count * np.dtype(dtype).itemsize)
        return np.memmap(file, dtype, "r+", shape=(count,))

"""A column of strings as two arrays, so that a million reviews are two NumPy arrays and not a million objects."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

_TAKE_ROWS = 1 << 14


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
        return self.bytes_at(index % len(self)).decode()

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def take(self, rows: np.ndarray) -> Strings:
        """The strings at `rows` (int [m]), as a new column."""
        rows = np.asarray(rows, np.int64)
        lengths = self.lengths[rows]
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        data = np.empty(offsets[-1], np.uint8)
        begins, ends, source = self.offsets[:-1][rows], self.offsets[1:][rows], np.ascontiguousarray(self.data).data
        for first in range(0, len(rows), _TAKE_ROWS):  # whole strings are copied at once, some thousand a time
            block = slice(first, min(first + _TAKE_ROWS, len(rows)))
            pairs = zip(begins[block].tolist(), ends[block].tolist(), strict=True)
            joined = b"".join([source[begin:end] for begin, end in pairs])
            data[offsets[block.start] : offsets[block.stop]] = np.frombuffer(joined, np.uint8)
        return Strings(data, offsets)

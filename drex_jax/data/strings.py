"""A column of strings as two arrays, so that a million reviews are two NumPy arrays and not a million objects."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from drex_jax.common.errors import UserError

_TAKE_ROWS, _TAKE_BYTES = 1 << 20, 64 << 20  # upper limits of a block of strings that is copied at once
MAP_FROM_BYTES = 256 << 20  # a smaller array is held in memory


@dataclasses.dataclass(frozen=True)
class Strings:
    """UTF-8 strings end to end, and the offset of each.

    Attributes:
      data: uint8 [bytes], possibly memory-mapped.
      offsets: int64 [n + 1]; string i is `data[offsets[i]:offsets[i + 1]]`.

    >>> names = Strings.of(["ann", "", "bo"])
    >>> len(names), names[2], list(names.take(np.array([2, 0])))
    (3, 'bo', ['bo', 'ann'])
    """

    data: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, values: Iterable[str | bytes]) -> Strings:
        """Return the strings of Python objects. A `str` with a lone surrogate raises UnicodeEncodeError."""
        encoded = [value if isinstance(value, bytes) else value.encode() for value in values]
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets_of([len(value) for value in encoded]))

    @classmethod
    def empty(cls, n: int) -> Strings:
        """Return n empty strings."""
        return cls(np.zeros(0, np.uint8), np.zeros(n + 1, np.int64))

    @classmethod
    def concatenate(cls, parts: Sequence[Strings]) -> Strings:
        """Return all strings of all parts, in order."""
        if not parts:
            return cls.empty(0)
        data = np.concatenate([part.data[part.offsets[0] : part.offsets[-1]] for part in parts])
        return cls(data, offsets_of(np.concatenate([part.lengths for part in parts])))

    def part(self, begin: int, end: int) -> Strings:
        """Return the strings [begin, end); their bytes are a view, not a copy."""
        offsets = self.offsets[begin : end + 1]
        return Strings(self.data[offsets[0] : offsets[-1]], offsets - offsets[0])

    @property
    def lengths(self) -> np.ndarray:
        """Bytes of each string, int64 [n]."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def bytes_at(self, index: int) -> bytes:
        """Return the bytes of one string."""
        return self.data[self.offsets[index] : self.offsets[index + 1]].tobytes()

    def __getitem__(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(f"string {index} of {len(self)}")
        try:
            return self.bytes_at(index % len(self)).decode()
        except UnicodeDecodeError as error:  # readers accept only UTF-8, so this comes from a damaged folder
            raise UserError(
                f"string {index} of {len(self):,} is no UTF-8 ({error}); the run directory is damaged"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def take(self, rows: np.ndarray) -> Strings:
        """Return the strings at `rows` (int [m]) as a new column."""
        return gather([self], rows)

    def to_arrow(self) -> pa.LargeBinaryArray:
        """Return an Arrow array that shares the memory of this column."""
        buffers = [None, *(pa.py_buffer(np.ascontiguousarray(column)) for column in (self.offsets, self.data))]
        return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(self), buffers)


def offsets_of(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the offsets of strings that lie end to end, int64 [n + 1].

    >>> offsets_of([3, 0, 2]).tolist()
    [0, 3, 3, 5]
    """
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def gather(parts: Sequence[Strings], rows: np.ndarray, scratch: str | Path | None = None) -> Strings:
    """Return strings of several columns as one column.

    Memory is bounded: Arrow takes the strings block by block, as one `take` over all parts would first copy them all.

    Args:
      parts: the columns; a row is a position in all of them end to end.
      rows: int [m].
      scratch: folder of the backing file of a large result (see `allocate`).
    """
    rows = np.asarray(rows, np.int64)
    columns = [part.to_arrow() for part in parts]
    begins = offsets_of([len(part) for part in parts])
    lengths = np.concatenate([np.zeros(0, np.int64), *(part.lengths for part in parts)])
    offsets = offsets_of(lengths[rows])
    data = allocate(int(offsets[-1]), np.uint8, scratch)
    first = 0
    while first < len(rows):
        within = int(np.searchsorted(offsets, offsets[first] + _TAKE_BYTES, "right")) - 1
        last = min(max(within, first + 1), first + _TAKE_ROWS, len(rows))
        block = rows[first:last]
        part = np.searchsorted(begins, block, "right") - 1
        order = np.argsort(part, kind="stable")
        cuts = np.flatnonzero(np.diff(part[order], prepend=-1))
        pieces = np.split((block - begins[part])[order], cuts[1:])
        taken = [columns[number].take(pa.array(piece)) for number, piece in zip(part[order][cuts], pieces, strict=True)]
        bytes_of_block = pa.concat_arrays(taken).take(pa.array(np.argsort(order))).buffers()[2]
        begin, end = offsets[first], offsets[last]
        data[begin:end] = np.frombuffer(bytes_of_block or b"", np.uint8)[: end - begin]
        first = last
    return Strings(data, offsets)


def allocate(count: int, dtype: type, folder: str | Path | None = None) -> np.ndarray:
    """Return a new array [count]: in memory or, if it is large, mapped from an unnamed temporary file.

    Args:
      count: number of elements.
      dtype: type of the elements.
      folder: folder of the backing file, which is deleted with the array; None: the folder of temporary files.
    """
    if count * np.dtype(dtype).itemsize < MAP_FROM_BYTES:
        return np.empty(count, dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.truncate(count * np.dtype(dtype).itemsize)
        return np.memmap(file, dtype, "r+", shape=(count,))

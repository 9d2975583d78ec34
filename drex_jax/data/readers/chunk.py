"""Interactions as columns, checked and not yet numbered: the output of every reader, and the content of an update."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from drex_jax.data.readers.fields import BadField
from drex_jax.data.readers.quarantine import Quarantine
from drex_jax.data.strings import Strings

CHUNK_ROWS = 65_536
_STRINGS = ("user", "item", "text")
_VECTORS = "vectors/"  # prefix of the names of vectors in `Chunk.to_arrays`

RawRow = TypeVar("RawRow")


class Row(NamedTuple):
    """One checked interaction.

    Attributes:
      user, item: ids in UTF-8.
      timestamp: seconds since 1970.
      rating: NaN if missing.
      text: the review in UTF-8; empty if missing.
      vectors: for each vector modality its float32 [width], or None if missing.
      split: 0 train, 1 validation, 2 test; used only where the file has a split column.
    """

    user: bytes
    item: bytes
    timestamp: float
    rating: float
    text: bytes = b""
    vectors: tuple[np.ndarray | None, ...] = ()
    split: int = 0


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Columns of n checked interactions, in the order of the input.

    Attributes:
      user, item: ids; never empty.
      timestamp: float64 [n], seconds since 1970.
      rating: float32 [n]; NaN where missing.
      text: the reviews; empty where missing.
      vectors: named numeric modalities, float32 [n, width]; a row of NaN is missing. A modality that no row has may be
        absent.
      split: int8 [n], the split column of the file (0 train, 1 validation, 2 test), or None.
    """

    user: Strings
    item: Strings
    timestamp: np.ndarray
    rating: np.ndarray
    text: Strings
    vectors: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict[str, np.ndarray])
    split: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.timestamp)

    @classmethod
    def of(cls, rows: Sequence[Row], vectors: Sequence[str] = (), has_split: bool = False) -> Chunk:
        """Return the chunk of some rows.

        Args:
          rows: the interactions.
          vectors: names of the vector modalities, in the order of `Row.vectors`.
          has_split: True if the file has a split column.
        """
        user, item, timestamp, rating, text, by_row, split = zip(*rows, strict=True) if rows else ((),) * 7
        by_name = dict(zip(vectors, zip(*by_row, strict=True), strict=True)) if rows else {}
        return cls(
            user=Strings.of(user),
            item=Strings.of(item),
            timestamp=np.array(timestamp, np.float64),
            rating=np.array(rating, np.float32),
            text=Strings.of(text),
            vectors={name: _stack(column) for name, column in by_name.items() if any(v is not None for v in column)},
            split=np.array(split, np.int8) if has_split else None,
        )

    def take(self, rows: np.ndarray) -> Chunk:
        """Return the interactions at `rows` (int [m]) as a copy."""
        return Chunk(
            user=self.user.take(rows),
            item=self.item.take(rows),
            timestamp=self.timestamp[rows],
            rating=self.rating[rows],
            text=self.text.take(rows),
            vectors={name: values[rows] for name, values in self.vectors.items()},
            split=None if self.split is None else self.split[rows],
        )

    def vector(self, name: str, width: int) -> np.ndarray:
        """Return one vector modality, float32 [n, width]; rows of NaN if no row has it."""
        return self.vectors[name] if name in self.vectors else np.full((len(self), width), np.nan, np.float32)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the chunk as named arrays, for a cache."""
        arrays = {"timestamp": self.timestamp, "rating": self.rating}
        for name in _STRINGS:
            column: Strings = getattr(self, name)
            arrays |= {f"{name}.bytes": column.data, f"{name}.offsets": column.offsets}
        if self.split is not None:
            arrays["split"] = self.split
        return arrays | {_VECTORS + name: values for name, values in self.vectors.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Chunk:
        """Return the chunk of arrays from `to_arrays`; other names are ignored."""
        user, item, text = (Strings(arrays[f"{name}.bytes"], arrays[f"{name}.offsets"]) for name in _STRINGS)
        vectors = {name.removeprefix(_VECTORS): values for name, values in arrays.items() if name.startswith(_VECTORS)}
        return cls(user, item, arrays["timestamp"], arrays["rating"], text, vectors, arrays.get("split"))


def checked_chunks(
    path: Path,
    rows: Iterable[tuple[int, RawRow]],
    check: Callable[[RawRow], Row],
    quarantine: Quarantine,
    vectors: Sequence[str] = (),
    has_split: bool = False,
) -> Iterator[Chunk]:
    """Yield chunks of the rows that pass `check`, in order; the last chunk may be empty.

    Args:
      path: the file, for the quarantine.
      rows: (line number, row) of each row.
      check: the checked interaction of a row; raises `BadField`.
      quarantine: receives the rows that fail.
      vectors: names of the vector modalities, in the order of `Row.vectors`.
      has_split: True if the file has a split column.
    """
    good: list[Row] = []
    for line, row in rows:
        try:
            good.append(check(row))
        except BadField as bad:
            quarantine.reject(path, line, bad.reason, bad.value)
        if len(good) >= CHUNK_ROWS:
            chunk, good = Chunk.of(good, vectors, has_split), []
            yield chunk
    yield Chunk.of(good, vectors, has_split)


def _stack(column: Sequence[np.ndarray | None]) -> np.ndarray:
    """Return float32 [n, width]; a missing vector is a row of NaN, and at least one vector must be present."""
    width = next(len(vector) for vector in column if vector is not None)
    missing = np.full(width, np.nan, np.float32)
    return np.stack([missing if vector is None else vector for vector in column])

"""What every reader yields: some thousand interactions as columns, in file order, not yet numbered."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from drex_jax.data.strings import Strings

CHUNK_ROWS = 65_536


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Columns of n interactions, each of them already checked.

    Attributes:
      user, item: ids; never empty.
      timestamp: float64 [n], seconds since 1970.
      rating: float32 [n]; NaN where missing.
      text: the review; empty where missing.
      vectors: named numeric modalities, float32 [n, width]; a row of NaN is missing.
      split: int8 [n], the file's own split (0 train, 1 validation, 2 test), or None.
    """

    user: Strings
    item: Strings
    timestamp: np.ndarray
    rating: np.ndarray
    text: Strings
    vectors: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    split: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.timestamp)


class ChunkBuilder:
    """Collects checked rows until there are enough of them for a chunk."""

    def __init__(self, vectors: tuple[str, ...] = (), has_split: bool = False):
        self._vector_names = vectors
        self._has_split = has_split
        self._clear()

    def _clear(self) -> None:
        self._user: list[bytes] = []
        self._item: list[bytes] = []
        self._timestamp: list[float] = []
        self._rating: list[float] = []
        self._text: list[bytes] = []
        self._split: list[int] = []
        self._vectors: list[list[np.ndarray | None]] = [[] for _ in self._vector_names]

    def add(
        self,
        user: bytes,
        item: bytes,
        timestamp: float,
        rating: float,
        text: bytes,
        vectors: tuple[np.ndarray | None, ...] = (),
        split: int = 0,
    ) -> None:
        """Adds one row: ids and text in UTF-8, a vector (or None) for each of the builder's names."""
        self._user.append(user)
        self._item.append(item)
        self._timestamp.append(timestamp)
        self._rating.append(rating)
        self._text.append(text)
        if self._has_split:
            self._split.append(split)
        for column, vector in zip(self._vectors, vectors, strict=True):
            column.append(vector)

    def __len__(self) -> int:
        return len(self._timestamp)

    @property
    def full(self) -> bool:
        """There are CHUNK_ROWS rows: time to `take`."""
        return len(self._timestamp) >= CHUNK_ROWS

    def take(self) -> Chunk:
        """The rows collected so far as a chunk; the builder starts anew."""
        chunk = Chunk(
            user=Strings.of(self._user),
            item=Strings.of(self._item),
            timestamp=np.array(self._timestamp, np.float64),
            rating=np.array(self._rating, np.float32),
            text=Strings.of(self._text),
            vectors={
                name: _stack(column)
                for name, column in zip(self._vector_names, self._vectors, strict=True)
                if any(vector is not None for vector in column)
            },
            split=np.array(self._split, np.int8) if self._has_split else None,
        )
        self._clear()
        return chunk


def _stack(column: list[np.ndarray | None]) -> np.ndarray:
    """float32 [n, width]; a missing vector is a row of NaN. At least one must be there."""
    width = next(len(vector) for vector in column if vector is not None)
    missing = np.full(width, np.nan, np.float32)
    return np.stack([missing if vector is None else vector for vector in column])

"""Interactions as columns, checked and not yet numbered: what readers of files yield and an update takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from drex_jax.data.strings import Strings

CHUNK_ROWS = 65_536


@dataclasses.dataclass(frozen=True)
class Chunk:
    """The columns of n checked interactions, in the order in which they were given.

    Attributes:
      user, item: ids; never empty.
      timestamp: float64 [n], seconds since 1970.
      rating: float32 [n]; NaN where missing.
      text: reviews; empty where missing.
      vectors: named numeric modalities, float32 [n, width]; a row of NaN is missing. A modality that no row has may be
        left out.
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
        """Return one vector modality, float32 [n, width]; rows of NaN where no row has it."""
        found = self.vectors.get(name)
        return np.full((len(self), width), np.nan, np.float32) if found is None else found


class ChunkBuilder:
    """Collect checked rows and make chunks of them."""

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
        """Add one row: ids and text in UTF-8, a vector (or None if missing) for each of the builder's names."""
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
        """True if there are CHUNK_ROWS rows, so that `take` is due."""
        return len(self._timestamp) >= CHUNK_ROWS

    def take(self) -> Chunk:
        """Return the rows collected so far as a chunk, and forget them."""
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
    """Stack vectors to float32 [n, width]; a missing one is a row of NaN. At least one must be present."""
    width = next(len(vector) for vector in column if vector is not None)
    missing = np.full(width, np.nan, np.float32)
    return np.stack([missing if vector is None else vector for vector in column])

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

"""The one table type: every interaction of a data set, as columns in time order."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from drex_jax.data.strings import Strings

MIN_TIMESTAMP = -2208988800.0  # 1900-01-01
MAX_TIMESTAMP = 7258118400.0  # 2200-01-01


@dataclasses.dataclass(frozen=True)
class Interactions:
    """Interactions in the order of (timestamp, user id, item id, row hash).

    N rows; users and items are numbered by their first appearance in that order, so that neither the order of the
    input rows nor what comes later changes a number. Columns may be memory-mapped.

    Attributes:
      name: the data set's name, for results.
      user_ids, item_ids: the ids as the file has them; position = number.
      user, item: int32 [N].
      timestamp: float64 [N], seconds since 1970, non-decreasing.
      rating: float32 [N]; NaN where missing.
      text: the review; an empty string is a missing text.
      vectors: named numeric modalities, float32 [N, width]; a row of NaN is missing.
      rating_range: (lowest, highest) of the scale, from the config or the data set's definition; None without ratings.
      given_split: int8 [N] of the file's own split column (0 train, 1 validation, 2 test), or None.
    """

    name: str
    user_ids: Strings
    item_ids: Strings
    user: np.ndarray
    item: np.ndarray
    timestamp: np.ndarray
    rating: np.ndarray
    text: Strings
    vectors: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    rating_range: tuple[float, float] | None = None
    given_split: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.user)

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        return len(self.item_ids)

    @property
    def has_rating(self) -> np.ndarray:
        """bool [N]."""
        return ~np.isnan(self.rating)

    @property
    def has_text(self) -> np.ndarray:
        """bool [N]."""
        return self.text.lengths > 0

    def sha256(self) -> str:
        """A fingerprint of every value, the same however the input rows were ordered."""
        digest = hashlib.sha256()
        columns = [self.user_ids.data, self.user_ids.offsets, self.item_ids.data, self.item_ids.offsets]
        columns += [self.user, self.item, self.timestamp, self.rating, self.text.data, self.text.offsets]
        for name in sorted(self.vectors):
            digest.update(name.encode())
            columns.append(self.vectors[name])
        if self.given_split is not None:
            columns.append(self.given_split)
        for column in columns:
            digest.update(str((column.dtype.str, column.shape)).encode())
            digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()

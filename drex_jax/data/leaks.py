"""What a split by time leaves open: reviews on both sides of it, and a choice of users and items with hindsight."""

from __future__ import annotations

import numpy as np

from drex_jax.data.interactions import Interactions


def found(interactions: Interactions, sizes: tuple[int, int, int], k_core: int = 0) -> list[str]:
    """A sentence if a review stands on both sides of a boundary (same user, item and text), and one for a k-core.

    (Whether the parts follow one another in time is `split.Split.leaks`.)

    Args:
      interactions: from `modalities.in_learning_order`.
      sizes: how many train, validation and test interactions it holds.
      k_core: `data.k_core`: who stays in a core depends on what comes later.
    """
    core = f"data.k_core={k_core}: who is in the data at all depends on validation and test interactions too"
    return _copies(interactions, sizes) + ([core] if k_core > 1 else [])


def _copies(interactions: Interactions, sizes: tuple[int, int, int]) -> list[str]:
    pairs = interactions.user.astype(np.int64) * interactions.num_items + interactions.item
    values, counts = np.unique(pairs, return_counts=True)
    copied = np.flatnonzero(interactions.has_text & np.isin(pairs, values[counts > 1]))
    parts = np.searchsorted(np.cumsum(sizes)[:2], copied, side="right")
    homes: dict[tuple[int, bytes], set[int]] = {}
    for row, part in zip(copied.tolist(), parts.tolist(), strict=True):
        homes.setdefault((int(pairs[row]), interactions.text.bytes_at(row)), set()).add(part)
    copies = sum(len(sides) > 1 for sides in homes.values())
    return [f"{copies:,} reviews stand on both sides of a boundary: same user, item and text"] if copies else []

"""Reviews that stand on both sides of a split, looked for in the data themselves."""

from __future__ import annotations

import numpy as np

from drex_jax.data.interactions import Interactions


def found(interactions: Interactions, sizes: tuple[int, int, int]) -> list[str]:
    """A sentence if a review stands on both sides of a boundary: same user, item and text; else nothing.

    (Whether the parts follow one another in time is `split.Split.leaks`.)

    Args:
      interactions: from `modalities.in_learning_order`.
      sizes: how many train, validation and test interactions it holds.
    """
    pairs = interactions.user.astype(np.int64) * interactions.num_items + interactions.item
    values, counts = np.unique(pairs, return_counts=True)
    copied = np.flatnonzero(interactions.has_text & np.isin(pairs, values[counts > 1]))
    parts = np.searchsorted(np.cumsum(sizes)[:2], copied, side="right")
    homes: dict[tuple[int, bytes], set[int]] = {}
    for row, part in zip(copied.tolist(), parts.tolist(), strict=True):
        homes.setdefault((int(pairs[row]), interactions.text.bytes_at(row)), set()).add(part)
    copies = sum(len(sides) > 1 for sides in homes.values())
    return [f"{copies:,} reviews stand on both sides of a boundary: same user, item and text"] if copies else []

"""Ways in which a split lets a model see the future, looked for in the data themselves."""

from __future__ import annotations

import itertools

import numpy as np

from drex_jax.data.interactions import Interactions


def found(interactions: Interactions, sizes: tuple[int, int, int]) -> list[str]:
    """One sentence for each leak between the parts of a table in the order of learning; empty if there is none.

    Looks for train interactions later than the first of validation or test (or validation later than test), and for
    interactions of one user with one item, with one text, on both sides of a boundary.

    Args:
      interactions: from `modalities.in_learning_order`.
      sizes: how many train, validation and test interactions it holds.
    """
    sentences = []
    begins = np.cumsum((0, *sizes))
    parts = [slice(int(a), int(b)) for a, b in itertools.pairwise(begins)]
    time = interactions.timestamp
    for earlier, later, name in ((0, 1, "train"), (1, 2, "validation")):
        rest = time[parts[later].start :]
        late = int((time[parts[earlier]] >= rest.min(initial=np.inf)).sum())
        if late:
            sentences.append(f"{late:,} {name} interactions are not earlier than all that follows them")
    pairs = interactions.user.astype(np.int64) * interactions.num_items + interactions.item
    texts = interactions.text
    known = {}
    for row in np.flatnonzero(texts.lengths > 0)[np.isin(pairs[texts.lengths > 0], _repeated(pairs))]:
        known.setdefault((int(pairs[row]), texts.bytes_at(int(row))), []).append(int(row))
    copies = sum(
        len({int(np.searchsorted(begins[1:-1], row, side="right")) for row in rows}) > 1 for rows in known.values()
    )
    if copies:
        sentences.append(f"{copies:,} reviews stand on both sides of a boundary: same user, item and text")
    return sentences


def _repeated(pairs: np.ndarray) -> np.ndarray:
    """The values that occur more than once."""
    values, counts = np.unique(pairs, return_counts=True)
    return values[counts > 1]

"""Positions of the interactions of one user or item in a stream."""

from __future__ import annotations

import numba
import numpy as np


def previous_and_next(ids: np.ndarray, num_ids: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each position the previous and the next position with the same id.

    Args:
      ids: int [N] in [0, num_ids).
      num_ids: number of ids.

    Returns:
      (previous, following): int32 [N]; -1 before the first, N after the last.

    >>> previous, following = previous_and_next(np.array([0, 1, 0, 0]), 2)
    >>> previous.tolist(), following.tolist()
    ([-1, -1, 0, 2], [2, 4, 3, 4])
    """
    return _neighbours(np.ascontiguousarray(ids, np.int32), num_ids)


@numba.njit(cache=True)
def _neighbours(ids: np.ndarray, num_ids: int) -> tuple[np.ndarray, np.ndarray]:  # pragma: no cover - compiled
    n = len(ids)
    last = np.full(num_ids, -1, np.int32)
    previous = np.empty(n, np.int32)
    following = np.full(n, n, np.int32)
    for k in range(n):
        before = last[ids[k]]
        previous[k] = before
        if before >= 0:
            following[before] = k
        last[ids[k]] = k
    return previous, following


def occurrences(ids: np.ndarray) -> np.ndarray:
    """Return for each position how many earlier positions have the same id, int64 [N].

    >>> occurrences(np.array([7, 3, 7, 7])).tolist()
    [0, 0, 1, 2]
    """
    order = np.argsort(ids, kind="stable")
    begins = np.flatnonzero(np.diff(ids[order], prepend=-1))
    earlier = np.empty(len(ids), np.int64)
    earlier[order] = np.arange(len(ids)) - np.repeat(begins, np.diff(begins, append=len(ids)))
    return earlier

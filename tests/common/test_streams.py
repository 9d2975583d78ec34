"""Positions of the interactions of one user or item in a stream."""

import numpy as np

from drex_jax.common import streams


def test_neighbours():
    previous, following = streams.previous_and_next(np.array([2, 0, 2, 2, 1, 0]), 4)
    assert previous.tolist() == [-1, -1, 0, 2, -1, 1]
    assert following.tolist() == [2, 5, 3, 6, 6, 6]


def test_occurrences_count_what_came_before():
    ids = np.array([2, 0, 2, 2, 1, 0])
    assert streams.occurrences(ids).tolist() == [ids[:k].tolist().count(x) for k, x in enumerate(ids)]
    assert streams.occurrences(np.zeros(0, np.int32)).tolist() == []

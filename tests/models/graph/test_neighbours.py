"""Nearest neighbours, compared with a sorted list of all cosines."""

import functools

import jax
import numpy as np
import pytest

from drex_jax.models.graph.neighbours import nearest


def twin(x, k, valid, include_self):
    """Return k pairs (number, cosine) for each item; short lists are filled with the item itself at -inf."""
    x = x.astype(np.float64)
    lists = []
    for i in range(len(x)):
        found = []
        for j in range(len(x)):
            if valid[i] and valid[j] and (include_self or i != j):
                norms = np.linalg.norm(x[i]) * np.linalg.norm(x[j])
                found.append((-(x[i] @ x[j]) / norms if norms else 0.0, j))
        found = [(j, -negated) for negated, j in sorted(found)[:k]]
        lists.append(found + [(i, -np.inf)] * (k - len(found)))
    return np.array(lists)[:, :, 0].astype(int), np.array(lists)[:, :, 1]


@functools.partial(jax.jit, static_argnames=("k", "include_self", "block"))
def compiled(x, k, valid, include_self, block):
    return nearest(x, k, valid=valid, include_self=include_self, block=block)


@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize(("k", "block"), [(5, 7), (31, 100), (40, 16)])
def test_nearest_is_the_sorted_list(k, block, include_self):
    rng = np.random.default_rng(k)
    x = rng.normal(size=(31, 6)).astype(np.float32)
    x[[4, 9]] = 0
    valid = rng.random(31) < 0.8
    expected_number, expected = twin(x, k, valid, include_self)
    number, similarity = compiled(x, k, valid, include_self, block)
    assert number.dtype == np.int32
    assert similarity.dtype == np.float32
    np.testing.assert_allclose(similarity, expected, atol=1e-6)
    ties = np.isclose(expected, 0, atol=1e-12)  # rows of zeros, whose sums are exact
    assert ties.any()
    np.testing.assert_array_equal(number, expected_number)


@pytest.mark.parametrize("include_self", [False, True])
def test_of_equal_cosines_the_lower_number_comes_first(include_self):
    rng = np.random.default_rng(0)
    x = rng.choice([-1.0, 1.0], (40, 4)).astype(np.float32) * 2.0 ** rng.integers(-3, 4, (40, 1)).astype(np.float32)
    expected_number, expected = twin(x, 12, np.ones(40, bool), include_self)  # all cosines are multiples of 1/2
    assert (np.diff(expected, axis=1) == 0).mean() > 0.5
    for block in (1, 16):
        number, similarity = compiled(x, 12, None, include_self, block)
        np.testing.assert_array_equal(number, expected_number)
        np.testing.assert_array_equal(similarity, expected)


def test_nobody_valid_and_a_single_item():
    x = np.ones((5, 3), np.float32)
    number, similarity = compiled(x, 3, np.zeros(5, bool), True, 2)
    assert (np.asarray(similarity) == -np.inf).all()
    np.testing.assert_array_equal(number, np.repeat(np.arange(5)[:, None], 3, axis=1))
    number, similarity = compiled(x[:1], 2, None, True, 256)
    np.testing.assert_array_equal(number, [[0, 0]])
    np.testing.assert_allclose(similarity, [[1, -np.inf]], rtol=1e-6)


def test_what_is_not_valid_is_not_read():
    x = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    valid = np.arange(12) % 3 > 0
    clean = compiled(x, 4, valid, False, 5)
    x[~valid] = np.nan
    for a, b in zip(compiled(x, 4, valid, False, 5), clean, strict=True):
        np.testing.assert_array_equal(a, b)


def test_no_square_array():
    x = np.zeros((2000, 8), np.float32)
    memory = jax.jit(functools.partial(nearest, k=4, block=32)).lower(x).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 2000 * 2000 * 4 / 8  # several blocks of 32 rows

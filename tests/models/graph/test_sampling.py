"""Negatives and edges are never forbidden ones, and have the right frequencies."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from drex_jax.models.graph.sampling import draw_negatives, keep_edges, seen

ITEMS = 12
OF_USER = [[], [0], [11], [0, 1, 2, 3], [8, 9, 10, 11], [0, 2, 4, 6, 8, 10], list(range(11)), list(range(1, 12))]
draw = jax.jit(draw_negatives, static_argnums=3)
keep = jax.jit(keep_edges, static_argnums=2)


def pairs(of_user):
    user, item = zip(*((u, i) for u, items in enumerate(of_user) for i in items), strict=True)
    return np.array(user), np.array(item)


def test_seen_is_sorted_and_distinct():
    user, item = pairs([[3, 1, 3], [], [2], [5, 0, 5, 5]])
    order = np.random.default_rng(0).permutation(len(user))
    begin, items = seen(user[order], item[order], 5)
    np.testing.assert_array_equal(begin, [0, 2, 2, 3, 5, 5])
    np.testing.assert_array_equal(items, [1, 3, 2, 0, 5])


@pytest.mark.parametrize("user", range(len(OF_USER)))
def test_negatives_are_uniform_over_the_complement(user):
    train = seen(*pairs(OF_USER), len(OF_USER))
    drawn = np.asarray(draw(jax.random.key(user), train, np.full(20_000, user), ITEMS))
    assert drawn.dtype == np.int32
    count = np.bincount(drawn, minlength=ITEMS)
    others = np.setdiff1d(np.arange(ITEMS), OF_USER[user])
    assert len(count) == ITEMS
    assert count.sum() == count[others].sum()
    assert stats.chisquare(count[others]).pvalue > 1e-3 if len(others) > 1 else count[others[0]] == 20_000
    # rejection sampling gives the same distribution
    rejected = np.random.default_rng(user).integers(0, ITEMS, 100_000)
    rejected = np.bincount(rejected[np.isin(rejected, others)], minlength=ITEMS)
    if len(others) > 1:
        assert stats.chi2_contingency([count[others], rejected[others]]).pvalue > 1e-3


def test_negatives_of_many_users_at_once_and_of_who_has_everything():
    rng = np.random.default_rng(0)
    of_user = [sorted(rng.choice(300, rng.integers(0, 300), replace=False)) for _ in range(50)] + [list(range(300))]
    train = seen(*pairs([items + items for items in of_user]), len(of_user))
    user = rng.integers(0, 51, 5000)
    drawn = np.asarray(draw(jax.random.key(0), train, user, 300))
    assert ((drawn >= 0) & (drawn < 300)).all()
    for u, i in zip(user, drawn, strict=True):
        assert u == 50 or i not in of_user[u]
    everything = drawn[user == 50]
    assert len(set(everything.tolist())) > 60  # of 300 items, in about 100 draws
    again = draw(jax.random.key(0), train, user, 300)
    np.testing.assert_array_equal(again, drawn)
    assert (np.asarray(draw(jax.random.key(1), train, user, 300)) != drawn).mean() > 0.9


def test_negatives_without_any_train_item():
    train = seen(np.zeros(0, int), np.zeros(0, int), 3)
    drawn = np.asarray(draw(jax.random.key(0), train, np.array([0, 1, 2] * 50), 4))
    assert set(drawn.tolist()) == {0, 1, 2, 3}


def test_negatives_of_a_large_catalogue_are_uniform():
    """For 63,001 items, a modulo of few random bits would be biased."""
    train = seen(np.zeros(3, int), np.array([0, 1000, 63_000]), 1)
    drawn = np.asarray(draw(jax.random.key(0), train, np.zeros(400_000, int), 63_001))
    assert stats.kstest(drawn / 63_001, "uniform").pvalue > 1e-3
    assert stats.chisquare(np.bincount(drawn % 64, minlength=64)).pvalue > 1e-3


def test_kept_edges_are_distinct_and_ascending():
    weight = np.random.default_rng(0).random(1000).astype(np.float32)
    for num_kept in (0, 300, 1000):
        kept = np.asarray(keep(jax.random.key(num_kept), weight, num_kept))
        assert kept.dtype == np.int32
        assert len(kept) == num_kept
        assert (np.diff(kept) > 0).all()
        assert ((kept >= 0) & (kept < 1000)).all()
    with pytest.raises(ValueError, match="1001 edges to keep of 1000"):
        keep_edges(jax.random.key(0), weight, 1001)


def test_kept_edges_follow_the_weights():
    """The outcomes of keeping 2 of 4 edges have the probabilities of sequential draws."""
    weight = np.array([1, 2, 3, 6])
    keys = jax.random.split(jax.random.key(0), 30_000)
    kept = np.asarray(jax.jit(jax.vmap(lambda key: keep_edges(key, jnp.asarray(weight, jnp.float32), 2)))(keys))
    share = weight / weight.sum()
    expected = {
        (a, b): share[a] * share[b] / (1 - share[a]) + share[b] * share[a] / (1 - share[b])
        for a, b in itertools.combinations(range(4), 2)
    }
    count = np.array([(kept == pair).all(1).sum() for pair in expected])
    assert stats.chisquare(count, 30_000 * np.array(list(expected.values()))).pvalue > 1e-3


def test_edges_without_weight_are_kept_last():
    weight = np.array([0, 1, 0, 2, 1e-30, 0], np.float32)
    of = functools.partial(keep, jax.random.key(3), weight)
    np.testing.assert_array_equal(of(3), [1, 3, 4])
    np.testing.assert_array_equal(of(5), [0, 1, 2, 3, 4])
    assert len(set(np.asarray(keep(jax.random.key(0), np.zeros(6, np.float32), 4)).tolist())) == 4

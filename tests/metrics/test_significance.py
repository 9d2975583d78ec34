import itertools

import numpy as np
import pytest

from drex_jax.metrics import significance
from drex_jax.metrics.significance import holm, paired_bootstrap, wilcoxon_signed_rank


def test_bootstrap_agrees_with_resampling_pairs():
    rng = np.random.default_rng(3)
    first, second = rng.normal(0.2, 1, 200), rng.normal(0, 1, 200)
    got = paired_bootstrap(first, second, resamples=4000)
    difference = first - second
    means = [difference[rng.integers(0, 200, 200)].mean() for _ in range(4000)]
    assert got.difference == pytest.approx(difference.mean())
    # the error of an end point over 4,000 resamples is about 0.003 (standard error of the mean 0.1)
    np.testing.assert_allclose([got.low, got.high], np.quantile(means, [0.025, 0.975]), atol=0.02)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        difference = rng.normal(1, 1, 60)
        interval = paired_bootstrap(difference, np.zeros(60), resamples=300, confidence=0.9)
        covered += interval.low <= 1 <= interval.high
    assert 0.82 < covered / 200 < 0.96


def test_bootstrap_is_deterministic_and_independent_of_the_block(monkeypatch):
    values = np.random.default_rng(0).random(50)
    whole = paired_bootstrap(values, np.zeros(50), resamples=100)
    monkeypatch.setattr(significance, "BLOCK", 130)
    assert paired_bootstrap(values, np.zeros(50), resamples=100) == whole
    assert paired_bootstrap(values, np.zeros(50), resamples=100, seed=1) != whole


def test_wilcoxon_equals_all_sign_patterns():
    difference = np.array([0.3, -0.1, 0.7, 0.9, 1.1, -0.5, 1.3])
    ranks = np.argsort(np.argsort(np.abs(difference))) + 1
    sums = [np.dot(ranks, signs) for signs in itertools.product([0, 1], repeat=7)]
    seen = ranks[difference > 0].sum()
    tail = np.mean([value >= seen for value in sums])  # the larger side
    assert wilcoxon_signed_rank(difference, np.zeros(7)) == pytest.approx(2 * tail)


def test_wilcoxon_without_a_difference():
    assert wilcoxon_signed_rank(np.ones(5), np.ones(5)) == 1.0


def test_holm_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_refuses_nonsense():
    with pytest.raises(ValueError, match="one length"):
        paired_bootstrap(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="above 0"):
        wilcoxon_signed_rank(np.ones(0), np.ones(0))
    with pytest.raises(ValueError, match="finite"):
        paired_bootstrap(np.array([np.nan]), np.ones(1))
    with pytest.raises(ValueError, match="confidence"):
        paired_bootstrap(np.ones(1), np.ones(1), confidence=1.0)
    with pytest.raises(ValueError, match="p-values"):
        holm([1.2])

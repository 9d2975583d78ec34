"""Bootstrap means over users, compared with drawing users one by one."""

import numpy as np
import pytest

from drex_jax.report import intervals


def test_resampled_means_are_those_of_users_drawn_one_by_one() -> None:
    rng = np.random.default_rng(0)
    users = [rng.integers(5, 12, 40), rng.integers(5, 9, 15)]
    values = [rng.normal(size=40), rng.normal(size=15)]
    found = intervals.resampled_means(users, values, seed=3)
    everyone = np.unique(np.concatenate(users))
    draws = np.random.default_rng(3)
    for resample in range(20):
        drawn = everyone[draws.integers(0, len(everyone), len(everyone))]
        for column in range(2):
            own = [value for one in drawn for value in values[column][users[column] == one]]
            expected = np.mean(own) if own else np.nan
            assert found[resample, column] == pytest.approx(expected, nan_ok=True)


def test_intervals() -> None:
    assert intervals.interval(np.arange(1001.0)) == pytest.approx((25, 975))
    assert np.isnan(intervals.interval(np.full(3, np.nan))).all()
    assert intervals.resampled_means([], []).shape == (intervals.RESAMPLES, 0)
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(400), 5)
    clustered = rng.normal(size=400)[user]  # everything a user has is alike
    low, high = intervals.interval(intervals.resampled_means([user], [clustered])[:, 0])
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)

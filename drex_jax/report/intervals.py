"""Bootstrap intervals of means over users: whoever is drawn comes with all that they have in the test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES, CONFIDENCE = 1000, 0.95
METHOD = "95 % percentile bootstrap, 1,000 resamples of users"


def resampled_means(users: Sequence[np.ndarray], values: Sequence[np.ndarray], seed: int = 0) -> np.ndarray:
    """Means of some columns of values under the same resamples of users, so that columns can be compared.

    Users are drawn, and not lists or interactions, because those of one user are alike.

    Args:
      users: for each column whose each value is, int [n].
      values: the columns, float [n], n of its own for each.
      seed: of the draws.

    Returns:
      float64 [RESAMPLES, columns]; NaN where a resample has nothing of a column.
    """
    everyone = np.unique(np.concatenate([np.zeros(0, np.int64), *users]))
    sums = np.zeros((len(everyone), 2 * len(values)))
    for column, (user, value) in enumerate(zip(users, values, strict=True)):
        place = np.searchsorted(everyone, user)
        sums[:, column] = np.bincount(place, value, len(everyone))
        sums[:, len(values) + column] = np.bincount(place, minlength=len(everyone))
    rng, drawn = np.random.default_rng(seed), np.zeros((RESAMPLES, 2 * len(values)))
    for resample in range(RESAMPLES if len(everyone) else 0):
        times = np.bincount(rng.integers(0, len(everyone), len(everyone)), minlength=len(everyone))
        drawn[resample] = times @ sums
    total, count = drawn[:, : len(values)], drawn[:, len(values) :]
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def interval(means: np.ndarray) -> tuple[float, float]:
    """The middle `CONFIDENCE` of resampled means [resamples]; NaN where there are none."""
    means = means[~np.isnan(means)]
    if not len(means):
        return float("nan"), float("nan")
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)

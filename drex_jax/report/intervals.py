"""Cluster bootstrap by user: confidence intervals of means of test values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES, CONFIDENCE = 1000, 0.95
METHOD = "95 % percentile bootstrap, 1,000 resamples of users"


def resampled_means(users: Sequence[np.ndarray], values: Sequence[np.ndarray], seed: int = 0) -> np.ndarray:
    """Return the means of columns of values under the same resamples of users, so that columns can be compared.

    Users are resampled instead of lists or interactions, because the values of one user are correlated.

    Args:
      users: for each column, the user of each value, int [n].
      values: the columns, float [n]; columns may have different lengths.
      seed: seed of the resampling.

    Returns:
      float64 [RESAMPLES, columns]; NaN if a resample has no value of a column.
    """
    everyone = np.unique(np.concatenate([np.zeros(0, np.int64), *users]))
    sums = np.zeros((len(everyone), 2 * len(values)))
    for column, (user, value) in enumerate(zip(users, values, strict=True)):
        number = np.searchsorted(everyone, user)
        sums[:, column] = np.bincount(number, value, len(everyone))
        sums[:, len(values) + column] = np.bincount(number, minlength=len(everyone))
    rng, drawn = np.random.default_rng(seed), np.zeros((RESAMPLES, 2 * len(values)))
    for resample in range(RESAMPLES if len(everyone) else 0):
        times = np.bincount(rng.integers(0, len(everyone), len(everyone)), minlength=len(everyone))
        drawn[resample] = times @ sums
    total, count = drawn[:, : len(values)], drawn[:, len(values) :]
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def interval(means: np.ndarray) -> tuple[float, float]:
    """Return the percentile interval of resampled means [resamples]; NaN without any."""
    means = means[~np.isnan(means)]
    if not len(means):
        return float("nan"), float("nan")
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)

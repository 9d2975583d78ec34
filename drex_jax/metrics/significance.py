"""Paired tests of two models on the same test set: bootstrap interval, Wilcoxon test, Holm adjustment."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.stats

BLOCK = 1 << 22  # counts drawn at a time; limits memory and does not change results


@dataclasses.dataclass(frozen=True)
class Interval:
    """The mean difference of two models and its confidence interval, from `low` to `high`."""

    difference: float
    low: float
    high: float


def paired_bootstrap(
    first: np.ndarray, second: np.ndarray, *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Estimate the mean of `first - second` with a percentile bootstrap interval over pairs.

    Resampling n pairs with replacement is one multinomial draw over the distinct differences; ranking metrics have
    few of them, so a million lists cost little.

    >>> paired_bootstrap(np.array([0.5, 0.75, 1.0]), np.array([0.25, 0.75, 0.5])).difference
    0.25

    Args:
      first: float [n], the first model's value for each list or interaction.
      second: float [n], the second model's values for the same lists or interactions, in the same order.
      resamples: number of bootstrap samples.
      confidence: coverage of the interval, in (0, 1).
      seed: seed of the resampling.

    Raises:
      ValueError: the shapes differ, there is no pair, a value is not finite, or `confidence` is outside (0, 1).
    """
    difference = _differences(first, second)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} must be between 0 and 1")
    values, counts = np.unique(difference, return_counts=True)
    n, rng = len(difference), np.random.default_rng(seed)
    means = []
    rows = max(1, BLOCK // len(values))
    for begin in range(0, resamples, rows):
        drawn = rng.multinomial(n, counts / n, size=min(rows, resamples - begin))  # [rows, distinct]
        means.append(drawn @ values / n)
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(difference.mean()), float(low), float(high))


def wilcoxon_signed_rank(first: np.ndarray, second: np.ndarray) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test. Pairs without a difference are left out.

    The p-value is 1 if no pair differs. Arguments and errors are those of `paired_bootstrap`.

    >>> wilcoxon_signed_rank(np.array([0.5, 0.7, 0.9]), np.array([0.4, 0.5, 0.6]))
    0.25
    """
    difference = _differences(first, second)
    if not difference.any():
        return 1.0
    return float(scipy.stats.wilcoxon(difference).pvalue)  # pyright: ignore[reportAttributeAccessIssue]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of several tests with Holm's step-down method; the order is kept.

    >>> holm([0.01, 0.04, 0.5])
    [0.03, 0.08, 0.5]

    Raises:
      ValueError: a value outside [0, 1].
    """
    p = np.asarray(p_values, np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values {list(p_values)} must be between 0 and 1")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted.tolist()


def _differences(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"pairs need two vectors of one length above 0, got {first.shape} and {second.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("values to compare must be finite")
    return first - second

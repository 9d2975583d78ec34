"""Is model A better than model B? Paired tests on per-list or per-interaction values of the same test set."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.stats

BLOCK = 1 << 22  # counts drawn at a time: bounds memory, changes no result


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean difference and its confidence interval."""

    difference: float
    low: float
    high: float


def paired_bootstrap(
    first: np.ndarray, second: np.ndarray, *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Estimate the mean of `first - second` with a percentile bootstrap interval over pairs.

    Resampling n pairs with replacement is one multinomial draw over the distinct differences; ranking metrics have
    few of them, so a million lists cost little.

    Args:
      first: float [n], one value a list or interaction.
      second: float [n], of the other model, the same lists or interactions in the same order.
      resamples: bootstrap samples.
      confidence: of the interval, in (0, 1).
      seed: of the resampling.

    Raises:
      ValueError: different shapes, no pair, a value that is not finite, or a confidence outside (0, 1).
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
    """Two-sided p-value of Wilcoxon's signed-rank test on the pairs; pairs without a difference are left out.

    1 where no pair differs. Arguments and errors as `paired_bootstrap`.
    """
    difference = _differences(first, second)
    if not difference.any():
        return 1.0
    return float(scipy.stats.wilcoxon(difference).pvalue)  # pyright: ignore[reportAttributeAccessIssue]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of a family of p-values, in the order given.

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

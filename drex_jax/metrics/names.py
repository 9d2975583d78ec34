"""The names of the metrics, and which of them are better when lower."""

from __future__ import annotations

ERROR_METRICS = ("mse", "rmse", "mae")
RANKING_METRICS = ("recall", "precision", "f1", "ndcg", "map", "hr", "mrr")


def lower_is_better(metric: str) -> bool:
    """Return True for error metrics and False for ranking metrics.

    >>> lower_is_better("mse"), lower_is_better("ndcg@10")
    (True, False)
    """
    return metric in ERROR_METRICS

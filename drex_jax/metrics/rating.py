"""Errors of predicted ratings."""

from __future__ import annotations

import numpy as np

from drex_jax.metrics.names import ERROR_METRICS


def rating_metrics(predicted: np.ndarray, actual: np.ndarray) -> dict[str, float]:
    """Return the mean squared, root mean squared and mean absolute error over the rated interactions.

    >>> rating_metrics(np.array([3.0, 4.0, 5.0]), np.array([4.0, 4.0, np.nan]))["mse"]
    0.5

    Args:
      predicted: float [n], predicted ratings in rating units (clip them to the rating scale first).
      actual: float [n], true ratings; missing ones are NaN and are left out.

    Returns:
      `mse`, `rmse` and `mae`, accumulated in float64. All three are NaN if no interaction is rated, or if the
      prediction of a rated interaction is NaN.

    Raises:
      ValueError: the two arrays differ in shape.
    """
    predicted, actual = np.asarray(predicted, np.float64), np.asarray(actual, np.float64)
    if predicted.shape != actual.shape or predicted.ndim != 1:
        raise ValueError(f"predictions {predicted.shape} and ratings {actual.shape} must be two vectors of one length")
    rated = ~np.isnan(actual)
    if not rated.any():
        return dict.fromkeys(ERROR_METRICS, float("nan"))
    error = predicted[rated] - actual[rated]
    mse = float(np.mean(error**2))
    return {"mse": mse, "rmse": mse**0.5, "mae": float(np.mean(np.abs(error)))}

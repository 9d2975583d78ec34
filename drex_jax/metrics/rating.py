"""Rating prediction errors."""

from __future__ import annotations

import numpy as np

from drex_jax.metrics.names import ERROR_METRICS


def rating_metrics(predicted: np.ndarray, actual: np.ndarray) -> dict[str, float]:
    """Mean squared, root mean squared and mean absolute error over the interactions that have a rating.

    Args:
      predicted: float [n], in the units of the ratings (clip to the rating range first).
      actual: float [n]; NaN is a missing rating and is left out.

    Returns:
      `mse`, `rmse` and `mae`, accumulated in float64. All three are NaN where no interaction has a rating: a mean of
      nothing has no value, and a zero would look like a perfect one. A NaN prediction of a rated interaction gives NaN.

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

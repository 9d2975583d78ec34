import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drex_jax.metrics.rating import rating_metrics

ratings = st.one_of(st.just(math.nan), st.floats(1, 5, width=32))


@given(st.lists(st.tuples(st.floats(1, 5, width=32), ratings), min_size=1))
def test_equals_a_plain_loop(pairs):
    squared = [(p - a) ** 2 for p, a in pairs if not math.isnan(a)]
    absolute = [abs(p - a) for p, a in pairs if not math.isnan(a)]
    got = rating_metrics(np.float32([p for p, _ in pairs]), np.float32([a for _, a in pairs]))
    assert set(got) == {"mse", "rmse", "mae"}
    if not squared:
        assert all(math.isnan(value) for value in got.values())
        return
    assert got["mse"] == pytest.approx(sum(squared) / len(squared), rel=1e-12, abs=1e-15)
    assert got["rmse"] == pytest.approx(math.sqrt(sum(squared) / len(squared)), rel=1e-12, abs=1e-15)
    assert got["mae"] == pytest.approx(sum(absolute) / len(absolute), rel=1e-12, abs=1e-15)


def test_no_interaction_has_no_value():
    assert all(math.isnan(value) for value in rating_metrics(np.zeros(0), np.zeros(0)).values())


def test_a_nan_prediction_is_not_hidden():
    assert math.isnan(rating_metrics(np.array([3.0, math.nan]), np.array([3.0, 4.0]))["mse"])


def test_accumulates_in_float64():
    n = 1 << 20  # float32 accumulation in sequence would lose the small errors
    predicted = np.full(n, 1.0001, np.float32)
    error = float(np.float32(1.0001)) - 1.0
    assert rating_metrics(predicted, np.ones(n, np.float32))["mae"] == pytest.approx(error, rel=1e-12)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one length"):
        rating_metrics(np.zeros(2), np.zeros(3))

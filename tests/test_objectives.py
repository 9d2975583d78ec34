"""Losses against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drex_jax import objectives

RNG = np.random.default_rng(0)
POSITIVE = RNG.normal(0, 2, 6).astype(np.float32)
NEGATIVE = RNG.normal(0, 2, (6, 4)).astype(np.float32)
VALID = RNG.random((6, 4)) < 0.6
VALID[2] = False  # an interaction with nothing to compare with


def test_squared_error():
    actual = np.array([1.0, np.nan, 3.0, 4.0], np.float32)
    valid = np.array([True, False, True, False])
    predicted = jnp.array([2.0, 5.0, 1.0, np.inf])
    assert objectives.squared_error(predicted, actual, valid) == pytest.approx((1 + 4) / 2)
    gradient = jax.grad(objectives.squared_error)(jnp.array([2.0, 5.0, 1.0, 0.0]), jnp.asarray(actual), valid)
    np.testing.assert_allclose(gradient, [1.0, 0.0, -2.0, 0.0])


def test_sampled_softmax():
    each = []
    for p, negatives, valid in zip(POSITIVE, NEGATIVE, VALID, strict=True):
        if valid.any():
            each.append(-np.log(np.exp(p) / (np.exp(p) + np.exp(negatives[valid]).sum())))
    assert len(each) < 6
    assert objectives.sampled_softmax(POSITIVE, NEGATIVE, VALID) == pytest.approx(np.mean(each), rel=1e-5)


def test_bpr():
    each = [-np.log(1 / (1 + np.exp(NEGATIVE[k, m] - POSITIVE[k]))) for k, m in np.argwhere(VALID)]
    assert objectives.bpr(POSITIVE, NEGATIVE, VALID) == pytest.approx(np.mean(each), rel=1e-5)


@pytest.mark.parametrize("name", objectives.RANKING_LOSSES)
def test_ranking_losses_have_finite_gradients_and_ignore_what_is_not_valid(name):
    loss = objectives.RANKING_LOSSES[name]
    gradient = jax.grad(loss, (0, 1))
    for scale in (1.0, 1e4):  # also where a naive exponential would overflow
        d_positive, d_negative = gradient(jnp.asarray(scale * POSITIVE), jnp.asarray(scale * NEGATIVE), VALID)
        assert np.isfinite(d_positive).all()
        assert np.isfinite(d_negative).all()
        assert not np.asarray(d_negative)[~VALID].any()
        assert d_positive[2] == 0
    assert loss(POSITIVE, NEGATIVE, np.zeros_like(VALID)) == 0
    other = np.where(VALID, NEGATIVE, 77.0)
    assert loss(POSITIVE, other, VALID) == loss(POSITIVE, NEGATIVE, VALID)
    better = loss(POSITIVE + 1, NEGATIVE, VALID)
    assert better < loss(POSITIVE, NEGATIVE, VALID)


def test_squared_error_of_nothing_is_zero():
    nothing = np.zeros(3, bool)
    assert objectives.squared_error(jnp.ones(3), jnp.full(3, jnp.nan), nothing) == 0
    assert not np.asarray(jax.grad(objectives.squared_error)(jnp.ones(3), jnp.full(3, jnp.nan), nothing)).any()

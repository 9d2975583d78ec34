"""Compare losses with loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drex_jax.models import losses

RNG = np.random.default_rng(0)
POSITIVE = RNG.normal(0, 2, 6).astype(np.float32)
NEGATIVE = RNG.normal(0, 2, (6, 4)).astype(np.float32)
VALID = RNG.random((6, 4)) < 0.6
VALID[2] = False  # an interaction without a valid negative


def test_squared_error():
    actual = np.array([1.0, np.nan, 3.0, 4.0], np.float32)
    valid = np.array([True, False, True, False])
    predicted = jnp.array([2.0, 5.0, 1.0, np.inf])
    assert losses.squared_error(predicted, actual, valid) == pytest.approx((1 + 4) / 2)
    gradient = jax.grad(losses.squared_error)(jnp.array([2.0, 5.0, 1.0, 0.0]), jnp.asarray(actual), valid)
    np.testing.assert_allclose(gradient, [1.0, 0.0, -2.0, 0.0])


def test_sampled_softmax():
    each = []
    for p, negatives, valid in zip(POSITIVE, NEGATIVE, VALID, strict=True):
        if valid.any():
            each.append(-np.log(np.exp(p) / (np.exp(p) + np.exp(negatives[valid]).sum())))
    assert len(each) < 6
    assert losses.sampled_softmax(POSITIVE, NEGATIVE, VALID) == pytest.approx(np.mean(each), rel=1e-5)


def test_bpr():
    each = [-np.log(1 / (1 + np.exp(NEGATIVE[k, m] - POSITIVE[k]))) for k, m in np.argwhere(VALID)]
    assert losses.bpr(POSITIVE, NEGATIVE, VALID) == pytest.approx(np.mean(each), rel=1e-5)


@pytest.mark.parametrize("name", losses.RANKING_LOSSES)
def test_ranking_losses_have_finite_gradients_and_ignore_what_is_not_valid(name):
    loss = losses.RANKING_LOSSES[name]
    gradient = jax.grad(loss, (0, 1))
    for scale in (1.0, 1e4):  # 1e4: a naive exponential would overflow
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
    assert losses.squared_error(jnp.ones(3), jnp.full(3, jnp.nan), nothing) == 0
    assert not np.asarray(jax.grad(losses.squared_error)(jnp.ones(3), jnp.full(3, jnp.nan), nothing)).any()


def slow_info_nce(anchors, own, others, counted, compared, temperature):
    """Compute InfoNCE one pair of rows at a time, in float64."""

    def cosine(a, b):
        lengths = np.linalg.norm(a) * np.linalg.norm(b)
        return float(a @ b / lengths) if lengths else 0.0

    each = []
    for i in np.flatnonzero(counted):
        exponentials = [np.exp(cosine(anchors[i], others[j]) / temperature) for j in np.flatnonzero(compared)]
        each.append(-np.log(np.exp(cosine(anchors[i], own[i]) / temperature) / sum(exponentials)))
    return np.mean(each) if each else 0.0


ROWS = RNG.normal(0, 3, (2, 7, 4)).astype(np.float32)
VIEWS = ROWS[0, :5], ROWS[1, :5], ROWS[1]  # five anchors; the positive of each is among seven rows
COMPARED = np.array([True, False, True, True, False, True, True])
COUNTED = COMPARED[:5]


@pytest.fixture(scope="module")
def info_nce():
    """Return a function to (loss, gradients of anchors, positives and compared rows), compiled once for all tests."""
    return jax.jit(jax.value_and_grad(losses.info_nce, (0, 1, 2)))


@pytest.mark.parametrize("temperature", [0.05, 0.2, 3.0])
def test_info_nce(info_nce, temperature):
    for compared in (COMPARED, np.ones(7, bool), np.arange(7) == 3):
        masks = compared[:5], compared
        expected = slow_info_nce(*(rows.astype(np.float64) for rows in VIEWS), *masks, temperature)
        found, _ = info_nce(*VIEWS, *masks, temperature)
        assert float(found) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert float(found) == pytest.approx(0, abs=1e-6)  # an anchor without another row to compare with


def test_info_nce_reads_no_rows_that_do_not_count_and_no_lengths(info_nce):
    expected, gradients = info_nce(*VIEWS, COUNTED, COMPARED, 0.2)
    masks = COUNTED, COUNTED, COMPARED
    other = [
        np.where(mask[:, None], rows * RNG.uniform(0.1, 9, (len(rows), 1)), 1e3).astype(np.float32)
        for rows, mask in zip(VIEWS, masks, strict=True)
    ]
    assert float(info_nce(*other, COUNTED, COMPARED, 0.2)[0]) == pytest.approx(float(expected), rel=1e-5)
    for gradient, rows, mask in zip(map(np.asarray, gradients), VIEWS, masks, strict=True):
        assert not gradient[~mask].any()
        assert np.abs(gradient[mask]).max(1).min() > 0
        np.testing.assert_allclose((gradient * rows).sum(1), 0, atol=1e-5)  # lengths have no effect
    assert info_nce(VIEWS[1], *VIEWS[1:], COUNTED, COMPARED, 0.2)[0] < expected
    assert info_nce(*VIEWS, np.zeros(5, bool), COMPARED, 0.2)[0] == 0


def test_info_nce_of_zero_rows_has_finite_gradients(info_nce):
    zeros = [rows.copy() for rows in VIEWS]
    zeros[0][2] = zeros[1][3] = zeros[2][3] = zeros[2][5] = 0
    value, gradients = info_nce(*zeros, COUNTED, COMPARED, 0.2)
    slow = slow_info_nce(*(rows.astype(np.float64) for rows in zeros), COUNTED, COMPARED, 0.2)
    assert float(value) == pytest.approx(slow, rel=1e-4)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_first_occurrences():
    found = jax.jit(losses.first_occurrences)
    rng = np.random.default_rng(2)
    for share in (0.0, 0.4, 0.7, 1.0):
        numbers, counted = rng.integers(0, 4, 9).astype(np.int32), rng.random(9) < share
        seen, expected = set(), []
        for number, counts in zip(numbers, counted, strict=True):
            expected.append(bool(counts) and number not in seen)
            seen |= {number} if counts else set()
        assert found(numbers, counted).tolist() == expected

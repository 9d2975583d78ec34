"""Dropout masks: the right share, independent over rows, positions and keys, and a function of the row number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drex_jax.devices import dropout

ROWS = np.arange(4000, dtype=np.int32)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_the_asked_share_is_dropped_everywhere(rate):
    mask = np.asarray(dropout.kept(jax.random.key(0), ROWS, rate, (5, 8)))
    spread = 5 * np.sqrt(max(rate * (1 - rate), 1e-12))
    assert abs(mask.mean() - (1 - rate)) <= spread / np.sqrt(mask.size)
    assert (np.abs(mask.mean(0) - (1 - rate)) <= spread / np.sqrt(len(ROWS))).all()
    assert (np.abs(mask.mean((1, 2)) - (1 - rate)) <= 1.2 * spread / np.sqrt(40)).all()


def test_rows_positions_and_keys_are_independent():
    masks = [np.asarray(dropout.kept(jax.random.key(seed), ROWS, 0.5, (64,))) - 0.5 for seed in (0, 1)]
    bound = 6 * 0.25 / np.sqrt(len(ROWS))
    between_positions = masks[0].T @ masks[0] / len(ROWS) - 0.25 * np.eye(64)
    assert np.abs(between_positions).max() < bound
    assert abs((masks[0] * masks[1]).mean()) < bound / 8
    for shift in (1, 2, 64):
        assert abs((masks[0][shift:] * masks[0][:-shift]).mean()) < bound / 8


def test_a_rows_mask_is_its_own_wherever_it_stands():
    whole = dropout.kept(jax.random.key(3), ROWS, 0.3, (7,))
    chosen = np.array([3999, 5, 17, 5])
    np.testing.assert_array_equal(dropout.kept(jax.random.key(3), chosen, 0.3, (7,)), whole[chosen])


def test_drop_keeps_the_mean_and_its_gradient_is_the_mask():
    values = jnp.ones((4000, 16))
    dropped = dropout.drop(jax.random.key(0), values, jnp.asarray(ROWS), 0.25)
    assert set(np.unique(dropped).round(6)) == {0.0, np.float32(1 / 0.75).round(6)}
    assert abs(float(dropped.mean()) - 1) < 0.01
    gradient = jax.grad(lambda v: dropout.drop(jax.random.key(0), v, jnp.asarray(ROWS), 0.25).sum())(values)
    np.testing.assert_allclose(gradient, dropped)

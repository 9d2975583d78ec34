"""The scheduled scan against one interaction at a time: states, losses with negatives, gradients, at every width."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drex_jax import objectives
from drex_jax.models.drex import recurrence, schedule, window

N, D, USERS, ITEMS, DRAWS = 24, 4, 6, 5, 3
WIDTHS = (1, 2, 3, 8, 32)
ROUNDING = 2e-5  # of the largest value: sums of float32 in another order, over a chain of up to 24 updates
HUB = st.one_of(st.just(0), st.integers(0, 4))
STREAMS = st.lists(st.tuples(st.one_of(HUB, st.just(5)), HUB), min_size=N, max_size=N)


def by_first_appearance(ids):
    numbers: dict[int, int] = {}
    return np.array([numbers.setdefault(k, len(numbers)) for k in ids], np.int32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def textbook(user_cell, item_cell, tables, inputs, user, item):
    """The equations of the module, an interaction at a time, in float64."""
    own_u, partner_u, own_i, partner_i = (np.asarray(w, np.float64) for w in (*user_cell, *item_cell))
    users = [np.asarray(row, np.float64) for row in tables[:USERS]]
    items = [np.asarray(row, np.float64) for row in tables[USERS : USERS + ITEMS]]

    def update(state, other, x, own, partner):
        r = sigmoid(x[:D] + state @ own[:, :D] + other @ partner[:, :D])
        z = sigmoid(x[D : 2 * D] + state @ own[:, D : 2 * D] + other @ partner[:, D : 2 * D])
        n = np.tanh(x[2 * D :] + other @ partner[:, 2 * D :] + r * (state @ own[:, 2 * D :]))
        return z * state + (1 - z) * n

    before = []
    for k in range(len(user)):
        u, i, x = users[user[k]], items[item[k]], np.asarray(inputs[k], np.float64)
        before.append(np.stack([u, i]))
        users[user[k]] = update(u, i, x[: 3 * D], own_u, partner_u)
        items[item[k]] = update(i, u, x[3 * D :], own_i, partner_i)
    return np.stack(users + items), np.stack(before)


def numbers(seed):
    """Cells, tables [U + I, D] and inputs [N, 6D]."""
    rng = np.random.default_rng(seed)
    cells = [recurrence.CellParams(*rng.normal(0, 0.7, (2, D, 3 * D)).astype(np.float32)) for _ in range(2)]
    tables = rng.normal(0, 1, (USERS + ITEMS, D)).astype(np.float32)
    return cells, tables, rng.normal(0, 1, (N, 6 * D)).astype(np.float32)


def lanes_of(user, item, width):
    """Lanes [N, B] (all widths padded to N steps), rows [N, B, 2] and slots [N]."""
    packed = schedule.schedule(user, item, width)
    lanes = np.full((N, width), N, np.int32)
    lanes[: packed.steps] = packed.events()
    empty = USERS + ITEMS + 2 * np.arange(width)
    rows = np.stack(
        [
            np.where(lanes < N, np.append(user, 0)[lanes], empty),
            np.where(lanes < N, np.append(item, 0)[lanes] + USERS, empty + 1),
        ],
        -1,
    )
    return lanes, rows.astype(np.int32), packed.slots()


def losses(before, tables, chosen, weights):
    """A loss that reads every state: negatives at their moments under both ranking losses, and a plain sum."""
    item_before, after = before[:, 1], tables[USERS : USERS + ITEMS]
    moments = jnp.concatenate([item_before, after])[chosen.state]
    positive = (before[:, 0] * item_before).sum(-1)
    negative = (before[:, :1] * moments).sum(-1)
    ranking = [f(positive, negative, chosen.valid) for f in objectives.RANKING_LOSSES.values()]
    return sum(ranking) + (before * weights[:N]).mean() + (tables[: USERS + ITEMS] ** 2).mean()


def value_and_gradient(states):
    def loss(parameters, chosen, weights, *stream):
        cells, tables, inputs = parameters
        after, before = states(recurrence.fused_weights(*cells), tables, inputs, *stream)
        return losses(before, after, chosen, weights), (after[: USERS + ITEMS], before)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def scheduled(weights, tables, inputs, lanes, rows, slots):
    steps, width = lanes.shape
    full = jnp.concatenate([tables, jnp.full((2 * width, D), 0.5)])
    after, before = recurrence.scan_states(
        weights, full, jnp.concatenate([inputs, jnp.ones((1, 6 * D))])[lanes], jnp.asarray(rows)
    )
    return after, before.reshape(steps * width, 2, D)[slots]


SEQUENTIAL = value_and_gradient(recurrence.sequential_states)
SCHEDULED = value_and_gradient(scheduled)


def assert_close(actual, expected, tolerance=ROUNDING):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        a, e = np.asarray(a), np.asarray(e)
        assert a.shape == e.shape
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * max(1.0, np.abs(e).max()))


@pytest.mark.parametrize("width", WIDTHS)
@settings(derandomize=True, deadline=None, max_examples=25)
@given(stream=STREAMS, seed=st.integers(0, 1000))
def test_scheduled_and_sequential_agree(width, stream, seed):
    user, item = by_first_appearance([u for u, _ in stream]), by_first_appearance([i for _, i in stream])
    parameters = numbers(seed)
    rng = np.random.default_rng(seed)
    known = np.maximum.accumulate(np.concatenate([[0], item[:-1] + 1]))
    chosen = window.negatives(item, known, ITEMS, DRAWS, rng)
    weights = rng.normal(0, 1, (N, 2, D)).astype(np.float32)
    rows = np.stack([user, item + USERS], 1)
    expected = SEQUENTIAL(parameters, chosen, weights, rows)
    assert_close(SCHEDULED(parameters, chosen, weights, *lanes_of(user, item, width)), expected)
    (_, (after, before)), _ = expected
    assert_close((after, before), textbook(*parameters[0], *parameters[1:], user, item))


def test_the_comparison_can_fail():
    """One interaction out of its place, and the states differ by far more than rounding."""
    parameters = numbers(0)
    user = item = np.zeros(N, np.int32)
    lanes, rows, slots = lanes_of(user, item, 1)
    swapped = lanes.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    weights = recurrence.fused_weights(*parameters[0])
    right, _ = scheduled(weights, *parameters[1:], lanes, rows, slots)
    wrong, _ = scheduled(weights, *parameters[1:], swapped, rows, slots)
    expected, _ = textbook(*parameters[0], *parameters[1:], user, item)
    assert np.abs(right[: USERS + ITEMS] - expected).max() < 1e-5
    assert np.abs(right - wrong).max() > 1e-3


def test_fused_weights_hold_the_equations_and_nothing_else():
    cells, _, _ = numbers(1)
    user, item = cells
    fused = np.asarray(recurrence.fused_weights(user, item)).reshape(2, D, 2, 4, D)  # reads u or i; cell; block; out
    for side, cell in enumerate((user, item)):
        own, partner = cell.own.reshape(D, 3, D), cell.partner.reshape(D, 3, D)
        for gate in (0, 1):  # r, z
            np.testing.assert_array_equal(fused[side, :, side, gate], own[:, gate])
            np.testing.assert_array_equal(fused[1 - side, :, side, gate], partner[:, gate])
        np.testing.assert_array_equal(fused[1 - side, :, side, 2], partner[:, 2])
        np.testing.assert_array_equal(fused[side, :, side, 3], own[:, 2])
        assert not fused[side, :, side, 2].any()
        assert not fused[1 - side, :, side, 3].any()


def test_structural_zeros_give_no_gradient():
    """A cotangent on the zero blocks alone moves no parameter; on all blocks it moves each parameter once."""
    cells, _, _ = numbers(2)
    fused, pull = jax.vjp(recurrence.fused_weights, *cells)
    zeros = np.zeros((2, D, 2, 4, D), np.float32)
    for side in (0, 1):
        zeros[side, :, side, 2] = zeros[1 - side, :, side, 3] = 1.0
    for gradient in jax.tree.leaves(pull(jnp.asarray(zeros.reshape(fused.shape)))):
        assert not np.asarray(gradient).any()
    for gradient in jax.tree.leaves(pull(jnp.ones_like(fused))):
        assert (np.asarray(gradient) == 1).all()


def test_empty_lanes_touch_nothing():
    parameters = numbers(3)
    user, item = by_first_appearance(range(4)), by_first_appearance(range(4))
    lanes, rows, _ = lanes_of(np.r_[user, np.zeros(20, int)], np.r_[item, np.zeros(20, int)], 8)
    empty = np.full_like(lanes, N)
    rows = np.broadcast_to((USERS + ITEMS + np.arange(16)).reshape(8, 2), rows.shape)
    after, _ = scheduled(recurrence.fused_weights(*parameters[0]), *parameters[1:], empty, rows, np.zeros(N, int))
    np.testing.assert_array_equal(after[: USERS + ITEMS], parameters[1])

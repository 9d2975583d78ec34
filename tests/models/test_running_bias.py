import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drex_jax.common.errors import UserError
from drex_jax.models.running_bias import BiasState, RunningBias, fit_running_bias, fit_static_bias

USERS, ITEMS = 4, 3
events = st.lists(
    st.tuples(
        st.integers(0, USERS - 1),
        st.integers(0, ITEMS - 1),
        st.one_of(st.just(math.nan), st.floats(1, 5, width=32)),
    ),
    max_size=40,
)


def columns(rows):
    user, item, rating = zip(*rows, strict=True) if rows else ((), (), ())
    return np.array(user, np.int32), np.array(item, np.int32), np.array(rating, np.float32)


def slow_run(rows, mean, lambda_u, lambda_i):
    """Follow the rule of the design with dictionaries."""
    sums_u, counts_u, sums_i, counts_i, terms = {}, {}, {}, {}, []
    for u, i, r in rows:
        b_u = sums_u.get(u, 0.0) / (counts_u.get(u, 0) + lambda_u)
        b_i = sums_i.get(i, 0.0) / (counts_i.get(i, 0) + lambda_i)
        terms.append((b_u, b_i, counts_u.get(u, 0), counts_i.get(i, 0)))
        if math.isnan(r):
            continue
        sums_u[u] = sums_u.get(u, 0.0) + (r - mean) - b_i
        sums_i[i] = sums_i.get(i, 0.0) + (r - mean) - b_u
        counts_u[u] = counts_u.get(u, 0) + 1
        counts_i[i] = counts_i.get(i, 0) + 1
    return terms, sums_u, sums_i


@settings(deadline=None)  # the first call compiles
@given(events, st.floats(0.1, 20), st.floats(0.1, 20))
def test_running_bias_equals_the_rule_in_plain_python(rows, lambda_u, lambda_i):
    state, terms = RunningBias(3.25, lambda_u, lambda_i).run(*columns(rows), BiasState.zeros(USERS, ITEMS))
    slow, sums_u, sums_i = slow_run(rows, 3.25, lambda_u, lambda_i)
    got = zip(terms.user_bias, terms.item_bias, terms.user_count, terms.item_count, strict=True)
    assert list(got) == [pytest.approx(row, rel=1e-12, abs=1e-12) for row in slow]
    assert state.user_sum.tolist() == pytest.approx([sums_u.get(u, 0.0) for u in range(USERS)], rel=1e-12, abs=1e-12)
    assert state.item_sum.tolist() == pytest.approx([sums_i.get(i, 0.0) for i in range(ITEMS)], rel=1e-12, abs=1e-12)


@settings(deadline=None)  # the first call compiles
@given(events, st.integers(0, 40))
def test_replay_in_two_parts_equals_one(rows, cut):
    model = RunningBias(3.0, 2.0, 1.0)
    whole, terms = model.run(*columns(rows), BiasState.zeros(USERS, ITEMS))
    middle, first = model.run(*columns(rows[:cut]), BiasState.zeros(USERS, ITEMS))
    kept = middle.user_sum.copy()
    end, second = model.run(*columns(rows[cut:]), middle)
    np.testing.assert_array_equal(middle.user_sum, kept)  # not modified in place
    for name in ("user_sum", "user_count", "item_sum", "item_count"):
        np.testing.assert_array_equal(getattr(end, name), getattr(whole, name))
    np.testing.assert_array_equal(np.concatenate([first.user_bias, second.user_bias]), terms.user_bias)


@settings(deadline=None)  # the first call compiles
@given(events.filter(bool), st.floats(1, 5, width=32))
def test_a_rating_cannot_change_its_own_or_an_earlier_prediction(rows, other):
    model, start = RunningBias(3.0, 2.0, 1.0), BiasState.zeros(USERS, ITEMS)
    before = model.combine(model.run(*columns(rows), start)[1])
    after = model.combine(model.run(*columns([*rows[:-1], (*rows[-1][:2], other)]), start)[1])
    np.testing.assert_array_equal(before, after)


def test_no_shrinkage_of_a_newcomer_is_zero_not_nan():
    _, terms = RunningBias(3.0, 0.0, 0.0).run(*columns([(0, 0, 5.0), (0, 1, 4.0)]), BiasState.zeros(1, 2))
    assert terms.user_bias.tolist() == [0.0, 2.0]


def test_static_bias_is_the_least_squares_solution():
    rng = np.random.default_rng(0)
    n = 200
    user, item = rng.integers(0, 12, n), rng.integers(0, 9, n)
    rating = np.clip(3 + rng.normal(0, 1, 12)[user] + rng.normal(0, 1, 9)[item] + rng.normal(0, 0.3, n), 1, 5)
    rating[::7] = np.nan
    got = fit_static_bias(user, item, rating, 150, 13, 9, (1, 5), grid=(2.0,))
    rated = np.flatnonzero(~np.isnan(rating[:150]))
    design = np.zeros((len(rated), 22))
    design[np.arange(len(rated)), user[rated]] = 1
    design[np.arange(len(rated)), 13 + item[rated]] = 1
    mean = rating[rated].mean()
    exact = np.linalg.solve(design.T @ design + 2 * np.eye(22), design.T @ (rating[rated] - mean))
    assert got.mean == pytest.approx(mean)
    np.testing.assert_allclose(np.concatenate([got.user, got.item]), exact, atol=1e-5)  # 20 sweeps
    assert got.user[12] == 0  # not in train
    predicted = np.clip(got.predict(user[150:], item[150:]), 1, 5)
    assert got.validation_mse == pytest.approx(np.nanmean((predicted - rating[150:]) ** 2))


@pytest.mark.parametrize("fit", [fit_static_bias, fit_running_bias])
def test_shrinkage_is_the_best_of_the_grid_on_validation(fit):
    rng = np.random.default_rng(1)
    n = 400
    user, item = rng.integers(0, 20, n), rng.integers(0, 20, n)
    rating = np.clip(3 + rng.normal(0, 1, 20)[user] + rng.normal(0, 0.2, 20)[item] + rng.normal(0, 0.5, n), 1, 5)
    args = (user, item, rating, 300, 20, 20, (1, 5))
    grid = (0.5, 5.0, 50.0)
    slow = {(a, b): slow_validation_mse(fit, args, a, b) for a in grid for b in grid}
    got = fit(*args, grid=grid)
    assert (got.user_shrinkage, got.item_shrinkage) == min(slow, key=lambda pair: slow[pair])
    assert got.validation_mse == pytest.approx(min(slow.values()), rel=1e-9)
    assert got.mean == pytest.approx(rating[:300].mean())


def slow_validation_mse(fit, args, user_shrinkage, item_shrinkage):
    user, item, rating, num_train, users, items, bounds = args
    if fit is fit_running_bias:
        model = RunningBias(rating[:num_train].mean(), user_shrinkage, item_shrinkage)
        predicted = model.combine(model.run(user, item, rating, BiasState.zeros(users, items))[1])[num_train:]
    else:
        b_u, b_i = np.zeros(users), np.zeros(items)
        e = rating[:num_train] - rating[:num_train].mean()
        for _ in range(20):
            for i in range(items):
                mine = item[:num_train] == i
                b_i[i] = (e - b_u[user[:num_train]])[mine].sum() / (mine.sum() + item_shrinkage)
            for u in range(users):
                mine = user[:num_train] == u
                b_u[u] = (e - b_i[item[:num_train]])[mine].sum() / (mine.sum() + user_shrinkage)
        predicted = rating[:num_train].mean() + b_u[user[num_train:]] + b_i[item[num_train:]]
    return float(np.mean((np.clip(predicted, *bounds) - rating[num_train:]) ** 2))


@pytest.mark.parametrize("fit", [fit_static_bias, fit_running_bias])
def test_without_ratings(fit):
    nothing = np.full(4, np.nan)
    index = np.zeros(4, np.int64)
    with pytest.raises(UserError, match="none of the 3 train"):
        fit(index, index, nothing, 3, 1, 1, (1, 5))
    only_train = np.array([4.0, 4.0, 2.0, np.nan])
    assert math.isnan(fit(index, index, only_train, 3, 1, 1, (1, 5)).validation_mse)


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"item 1 is not in 0 \.\. 0"):
        RunningBias(3.0, 1.0, 1.0).run(*columns([(0, 1, 3.0)]), BiasState.zeros(1, 1))
    with pytest.raises(ValueError, match="must agree"):
        RunningBias(3.0, 1.0, 1.0).run(np.zeros(2), np.zeros(1), np.zeros(1), BiasState.zeros(1, 1))

"""Compare baselines with slow twins: the rows before and after every event, and all rows at the end."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax
import pytest

from drex_jax.data.events import Events
from drex_jax.models import running_bias
from drex_jax.models.baselines.bias import Bias, GlobalMean, RunningBias
from drex_jax.models.baselines.matrix_factorisation import MatrixFactorisation, RatingStream
from drex_jax.models.baselines.popularity import Popularity

USERS, ITEMS, SIZES = 7, 9, (40, 12, 8)


@pytest.fixture(scope="module")
def events() -> Events:
    """Return events with repeated pairs, missing ratings, and one user and one item outside train."""
    rng = np.random.default_rng(1)
    n = sum(SIZES)
    user, item = rng.integers(0, USERS - 1, n), rng.integers(0, ITEMS - 1, n)
    user[SIZES[0] + 3 :: 5], item[SIZES[0] + 2 :: 4] = USERS - 1, ITEMS - 1
    rating = rng.integers(1, 6, n).astype(np.float32)
    rating[rng.random(n) < 0.2] = np.nan
    return Events(user.astype(np.int32), item.astype(np.int32), np.arange(n) * 9.0, rating, None, {}, USERS, ITEMS)


def replay(stream: Any, events: Events, params: Any = None) -> tuple[list[Any], list[Any]]:
    """Return the traces of train, validation and test, and the states after each."""
    carry, traces, carries = stream.start(params or {}), [], []
    for segment in stream.segments():
        carry, trace = stream.observe(params or {}, carry, segment)
        traces.append(trace)
        carries.append(carry)
        assert len(trace.user_before) == len(segment)
    return traces, carries


def predictions(stream: Any, events: Events, params: Any = None) -> np.ndarray:
    traces, _ = replay(stream, events, params)
    return np.concatenate([np.asarray(stream.model.rate(params or {}, t.user_before, t.item_before)) for t in traces])


def check_item_after(stream: Any, events: Events) -> None:
    """Check that an item's row after an event is its row before its next event, or in the last table."""
    traces, carries = replay(stream, events)
    before = np.concatenate([np.asarray(trace.item_before) for trace in traces])
    after = np.concatenate([np.asarray(trace.item_after) for trace in traces])
    for k, item in enumerate(events.item):
        later = [j for j in range(k + 1, len(events)) if events.item[j] == item]
        expected = before[later[0]] if later else np.asarray(carries[-1].item)[item]
        np.testing.assert_allclose(after[k], expected, rtol=1e-6)


def test_global_mean(events: Events) -> None:
    stream = GlobalMean().stream(2.5, events, SIZES)
    np.testing.assert_allclose(predictions(stream, events), 2.5)
    assert not stream.model.ranks


def test_bias_predicts_what_was_fitted_and_never_moves(events: Events) -> None:
    seen = slice(0, SIZES[0] + SIZES[1])
    columns = events.user[seen], events.item[seen], events.rating[seen]
    fitted = running_bias.fit_static_bias(*columns, SIZES[0], USERS, ITEMS, (1.0, 5.0))
    stream = Bias().stream(fitted, events, SIZES)
    found = predictions(stream, events)
    for k, (user, item) in enumerate(zip(events.user, events.item, strict=True)):
        assert found[k] == pytest.approx(fitted.mean + fitted.user[user] + fitted.item[item], rel=1e-5)
    assert found[-1] != found[0]
    scores = np.asarray(stream.model.rank({}, *stream.start({})))
    assert scores[2, 3] == pytest.approx(fitted.mean + fitted.user[2] + fitted.item[3], rel=1e-5)
    check_item_after(stream, events)


def test_running_bias(events: Events) -> None:
    mean, user_shrinkage, item_shrinkage = 3.0, 2.0, 5.0
    stream = RunningBias().stream(running_bias.RunningBias(mean, user_shrinkage, item_shrinkage), events, SIZES)
    found = predictions(stream, events)
    sums: dict[tuple[str, int], float] = {}
    counts: dict[tuple[str, int], int] = {}

    def bias(side: str, number: int, shrinkage: float) -> float:
        key = (side, number)
        return sums.get(key, 0.0) / (counts.get(key, 0) + shrinkage)

    for k in range(len(events)):
        user, item, rating = int(events.user[k]), int(events.item[k]), float(events.rating[k])
        b_u, b_i = bias("user", user, user_shrinkage), bias("item", item, item_shrinkage)
        assert found[k] == pytest.approx(mean + b_u + b_i, rel=1e-5)
        if not np.isnan(rating):
            for key, rest in ((("user", user), b_i), (("item", item), b_u)):
                sums[key] = sums.get(key, 0.0) + rating - mean - rest
                counts[key] = counts.get(key, 0) + 1
    _, carries = replay(stream, events)
    everyone = np.asarray(stream.model.rank({}, *carries[-1]))
    for user in range(USERS):
        for item in range(ITEMS):
            expected = mean + bias("user", user, user_shrinkage) + bias("item", item, item_shrinkage)
            assert everyone[user, item] == pytest.approx(expected, rel=1e-5)
    check_item_after(stream, events)


def test_popularity(events: Events) -> None:
    stream = Popularity().stream(events, SIZES)
    traces, carries = replay(stream, events)
    before = np.concatenate([np.asarray(trace.item_before)[:, 0] for trace in traces])
    for k, item in enumerate(events.item.tolist()):
        assert before[k] == events.item[:k].tolist().count(item)
    for end, carry in zip(np.cumsum(SIZES), carries, strict=True):
        counts = [events.item[:end].tolist().count(item) for item in range(ITEMS)]
        np.testing.assert_array_equal(np.asarray(stream.model.rank({}, *carry)), np.tile(counts, (USERS, 1)))
    assert not stream.model.rates
    check_item_after(stream, events)


def test_closed_form_has_nothing_to_train(events: Events) -> None:
    stream = Popularity().stream(events, SIZES)
    assert stream.init(jax.random.key(0)) == {}
    assert stream.steps_per_epoch() == 0
    assert list(stream.batches(0)) == []
    with pytest.raises(TypeError, match="Popularity is closed-form"):
        stream.model.loss({}, None, None, jax.random.key(0))


def test_factorisation_batches_hold_each_train_rating_once(events: Events) -> None:
    stream = RatingStream(MatrixFactorisation(3.0, 0.02, USERS, ITEMS), events, SIZES, batch_size=12)
    rated = [k for k in range(SIZES[0]) if not np.isnan(events.rating[k])]
    expected = sorted((int(events.user[k]), int(events.item[k]), float(events.rating[k]) - 3.0) for k in rated)
    epochs = []
    for epoch in (0, 1, 0):
        batches = list(stream.batches(epoch))
        assert len(batches) == stream.steps_per_epoch() == -(-len(rated) // 12)
        assert all(len(column) == 12 for batch in batches for column in batch)
        triples = [(int(u), int(i), float(t)) for b in batches for u, i, t, v in zip(*b, strict=True) if v]
        assert sorted(triples) == expected
        epochs.append(triples)
    assert epochs[0] == epochs[2] != epochs[1]


def test_factorisation_loss_and_gradient_ignore_padding(events: Events) -> None:
    stream = RatingStream(MatrixFactorisation(3.0, 0.1, USERS, ITEMS, size=2), events, SIZES, batch_size=64)
    params = stream.init(jax.random.key(0))
    (batch,) = stream.batches(0)
    loss = stream.model.loss(params, stream.start(params), batch, jax.random.key(0))[0]
    user, item = np.asarray(params["user"], float), np.asarray(params["item"], float)
    total, count = 0.0, 0
    for u, i, target, valid in zip(*batch, strict=True):
        if valid:
            predicted = sum(user[u, d] * item[i, d] for d in range(2)) + user[u, 2] + item[i, 2]
            total += (predicted - target) ** 2 + 0.1 * ((user[u] ** 2).sum() + (item[i] ** 2).sum())
            count += 1
    assert 0 < count < 64
    assert float(loss) == pytest.approx(total / count, rel=1e-5)
    spoilt = batch._replace(target=np.where(batch.valid, batch.target, 1e6).astype(np.float32))
    assert stream.model.loss(params, stream.start(params), spoilt, jax.random.key(0))[0] == loss


def test_factorisation_learns_low_rank_ratings() -> None:
    """Held-out ratings of a rank-2 world with biases are predicted far better than by the mean; cold starts get it."""
    rng = np.random.default_rng(0)
    users, items, n = 30, 25, 600
    truth = 3 + rng.normal(size=(users, 2)) @ rng.normal(size=(2, items)) + rng.normal(0, 0.5, (users, 1))
    pairs = rng.permutation(users * items)[:n]
    user, item = (pairs // items).astype(np.int32), (pairs % items).astype(np.int32)
    newcomers = np.array([users, users + 1], np.int32)
    events = Events(
        np.append(user, newcomers), np.append(item, [0, items]).astype(np.int32), np.arange(n + 2.0),
        np.append(truth[user, item], [1, 1]).astype(np.float32), None, {}, users + 2, items + 1,
    )  # fmt: skip
    sizes = (500, 100, 2)
    mean = float(events.rating[:500].mean())
    stream = RatingStream(MatrixFactorisation(mean, 0.02, users + 2, items + 1, size=4), events, sizes, batch_size=128)
    params = stream.init(jax.random.key(0))
    optimizer = optax.adam(0.05)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, batch):
        loss, gradient = jax.value_and_grad(
            lambda p: stream.model.loss(p, stream.start(p), batch, jax.random.key(0))[0]
        )(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, loss

    losses = []
    for epoch in range(40):
        for batch in stream.batches(epoch):
            params, state, loss = step(params, state, batch)
            losses.append(float(loss))
    assert np.mean(losses[-8:]) < 0.3 * np.mean(losses[:8])
    found = predictions(stream, events, params)
    held_out = slice(500, 600)
    error = np.mean((found[held_out] - events.rating[held_out]) ** 2)
    assert error < 0.4 * np.mean((mean - events.rating[held_out]) ** 2)
    start = stream.start(params)
    assert not np.asarray(start.user)[users:].any()
    assert not np.asarray(start.item)[items:].any()
    assert np.asarray(start.user)[:users].all(1).any()
    assert found[-1] == pytest.approx(mean)  # a new user on a new item
    scores = np.asarray(stream.model.rank(params, *start))
    assert scores[3, 4] + mean == pytest.approx(
        float(stream.model.rate(params, start.user[3:4], start.item[4:5])[0]), rel=1e-5
    )

"""NARRE equals a slow twin, never reads an interaction's own review for its prediction, and learns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from drex_jax.models.baselines.narre import NARRE
from drex_jax.models.baselines.narre_stream import ReviewStream
from drex_jax.models.baselines.settings import NarreSettings
from drex_jax.text import encoder as text_encoder
from drex_jax.text.encoder import TextEncoder

VOCABULARY, SIZES, REVIEWS = 20, (44, 8, 8), 3
ENCODER = TextEncoder(VOCABULARY, 4, 3, 0.0)
SETTINGS = NarreSettings(size=3, reviews=REVIEWS, batch_size=16, l2=0.03, dropout=0.0)


@pytest.fixture(scope="module")
def events(make_events):
    """Return events with distinct ratings, missing reviews, repeated pairs, and users and items outside train."""
    events = make_events(sum(SIZES), users=9, items=8, rated=0.8, reviewed=0.8, pictured=0.0)
    return dataclasses.replace(events, rating=events.rating + np.arange(len(events), dtype=np.float32) / 100)


def stream_of(events, devices=1, text_dropout=0.0, **settings):
    """Return NARRE over the events."""
    changed = dataclasses.replace(SETTINGS, **settings)
    model = NARRE(3.0, changed, VOCABULARY, 4, text_dropout, events.num_users, events.num_items)
    return ReviewStream(model, events, SIZES, devices=devices)


def interactions_of(events, batch):
    """Return the numbers of a batch's interactions, found by their distinct ratings."""
    return [int(np.nanargmin(np.abs(events.rating - 3.0 - target))) for target in batch.target[batch.valid]]


@pytest.fixture(scope="module")
def stream(events):
    return stream_of(events)


@pytest.fixture(scope="module")
def params(stream):
    """Return parameters without zeros."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(stream.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.5, leaf.shape), leaf.dtype), shapes)


@pytest.fixture(scope="module")
def rows(stream, params):
    """Return a function that computes the rows of a batch; compiled once, because all batches have one shape."""
    compiled = jax.jit(stream.model.rows)
    return lambda batch: [np.asarray(each) for each in compiled(params, batch)]


@pytest.fixture(scope="module")
def features(events, params):
    """Return the features of every review, each encoded separately."""
    lengths, ids = events.tokens.lengths, np.zeros((len(events), 8), np.int32)
    ids[np.arange(8) < lengths[:, None]] = events.tokens.ids
    return np.asarray(jax.jit(lambda ids: text_encoder.encode_chunk(ENCODER, params["text"], ids)[0])(ids), np.float64)


def twin_side(events, features, params, side, number, without):
    """Return one row, computed by loops, and the weight of each review in it; `without` is an omitted interaction."""
    own, other = (events.user, events.item) if side == "user" else (events.item, events.user)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params[side])
    train = range(SIZES[0])
    mine = [k for k in train if own[k] == number and events.tokens.lengths[k]][-REVIEWS:]
    read = [k for k in mine if k != without]
    scores = []
    for k in read:
        hidden = features[k] @ p["of_review"] + p["ids"][other[k]] @ p["of_id"] + p["bias"]
        scores.append(np.maximum(hidden, 0) @ p["query"])
    row = p["factors"][number].copy()
    if not any(own[k] == number and not np.isnan(events.rating[k]) for k in train):
        row[:] = 0
    attention = np.exp(scores) / np.exp(scores).sum() if read else np.zeros(0)
    if read:
        row[:-1] += sum(a * features[k] for a, k in zip(attention, read, strict=True)) @ p["project"] + p["offset"]
    if side == "user":
        row[:-1] *= np.asarray(params["weight"])
    return row, dict(zip(read, attention, strict=True))


def test_rows_and_attention_of_everyone_are_those_of_a_slow_twin(events, stream, params, features):
    carry, attention = stream.start(params), stream.review_attention(params)
    for side, found, table in zip(("user", "item"), carry, attention, strict=True):
        bare = 0
        for number, row in enumerate(np.asarray(found)):
            expected, weights = twin_side(events, features, params, side, number, None)
            np.testing.assert_allclose(row, expected, atol=1e-5)
            assert [k for k in table[0][number] if k >= 0] == list(weights)[::-1]
            np.testing.assert_allclose(table[1][number][: len(weights)], list(weights.values())[::-1], atol=1e-5)
            assert not table[1][number][len(weights) :].any()
            bare += not weights
        assert bare  # at least one has no review
        assert not np.asarray(found)[-1].any()  # the last one is a cold start
    rated, ranked = stream.model.rate(params, carry.user[:5], carry.item[:5]), stream.model.rank(params, *carry)
    expected = 3.0 + (carry.user[:5, :-1] * carry.item[:5, :-1]).sum(1) + carry.user[:5, -1] + carry.item[:5, -1]
    np.testing.assert_allclose(rated, expected, rtol=1e-5)
    np.testing.assert_allclose(rated, 3.0 + np.diag(ranked)[:5], rtol=1e-5)


def test_an_epoch_learns_from_each_rating_once_without_its_own_review(events, stream, params, features, rows):
    rated = [k for k in range(SIZES[0]) if not np.isnan(events.rating[k])]
    batches, left = list(stream.batches(0)), list(rated)
    assert len(batches) == stream.steps_per_epoch() == -(-len(rated) // 16) > 1
    loss = jax.jit(stream.model.loss)
    for batch in batches:
        users, items = rows(batch)
        errors, penalties = [], []
        for place, k in enumerate(interactions_of(events, batch)):
            left.remove(k)
            assert (batch.user[place], batch.item[place]) == (events.user[k], events.item[k])
            user, _ = twin_side(events, features, params, "user", events.user[k], k)
            item, _ = twin_side(events, features, params, "item", events.item[k], k)
            np.testing.assert_allclose(users[place], user, atol=1e-5)
            np.testing.assert_allclose(items[place], item, atol=1e-5)
            errors.append((user[:-1] @ item[:-1] + user[-1] + item[-1] + 3 - events.rating[k]) ** 2)
            of_user, of_item = (sum(own[j] == own[k] for j in rated) for own in (events.user, events.item))
            penalties.append((user**2).sum() / of_user + (item**2).sum() / of_item)
        found, (carry, figures) = loss(params, (), batch, jax.random.key(0))
        assert carry == ()
        assert float(figures["rating_loss"]) == pytest.approx(np.mean(errors), rel=1e-4)
        assert float(found) == pytest.approx(np.mean(errors) + 0.03 * np.mean(penalties), rel=1e-4)
    assert not left
    assert {id(stream._all)} == {id(stream.with_seed(1)._all)}

    def order(stream, epoch):
        return [batch.user.tolist() for batch in stream.batches(epoch)]

    assert order(stream, 1) == order(stream, 1)
    assert any(order(stream.with_seed(seed), 0) != order(stream, 0) for seed in range(1, 5))


def with_texts(events, chosen):
    """Return the events with other texts of the same lengths where `chosen` (bool [n]) is True."""
    ids = np.where(np.repeat(chosen, events.tokens.lengths), events.tokens.ids % 19 + 1, events.tokens.ids)
    return dataclasses.replace(events, tokens=events.tokens._replace(ids=ids.astype(np.int32)))


def test_a_text_changes_every_prediction_that_may_read_it_but_its_own(events, stream, params, rows):
    attention = stream.review_attention(params)

    def predicted(changed):
        found = {}
        for batch in stream_of(changed).batches(0):
            user, item = rows(batch)
            score = (user[:, :-1] * item[:, :-1]).sum(1)[batch.valid]
            found |= dict(zip(interactions_of(events, batch), score.tolist(), strict=True))
        return found

    before = predicted(events)
    read = [k for k in before if any(k in table for table, _ in attention)]
    for chosen in read[::4]:
        after = predicted(with_texts(events, np.arange(len(events)) == chosen))
        assert after[chosen] == before[chosen]
        may_read = [
            k
            for k in before
            if k != chosen
            and any(
                chosen in table[own[k]] for (table, _), own in zip(attention, (events.user, events.item), strict=True)
            )
        ]
        assert sorted(may_read) == sorted(k for k in before if after[k] != before[k])


def test_texts_of_validation_and_test_are_read_by_nobody(events, stream, params):
    other = with_texts(events, np.arange(len(events)) >= SIZES[0])
    assert (other.tokens.ids != events.tokens.ids).any()
    again = stream_of(other)
    jax.tree.map(np.testing.assert_array_equal, again._all, stream._all)
    jax.tree.map(np.testing.assert_array_equal, list(again.batches(0)), list(stream.batches(0)))


def test_padding_changes_nothing(events, params):
    stream, key = stream_of(events, 15, batch_size=99), jax.random.key(2)
    (batch,) = stream.batches(0)
    assert not batch.valid.all()
    assert len(batch.user) % 15 == 0
    spoilt = batch._replace(
        target=np.where(batch.valid, batch.target, 1e6).astype(np.float32),
        user=np.where(batch.valid, batch.user, 0),
        of_user=np.where(batch.valid[:, None], batch.of_user, 1),
    )
    loss = jax.jit(stream.model.loss)
    jax.tree.map(np.testing.assert_array_equal, loss(params, (), batch, key), loss(params, (), spoilt, key))


@pytest.fixture(scope="module")
def beginning(events, params):
    """Return a function from a number of devices to a model with dropout that starts from half of `params`.

    Drawing other parameters would take seconds.
    """

    def make(devices):
        stream = stream_of(events, devices, 0.2, dropout=0.1, l2=0.0)
        stream.init = lambda key: jax.tree.map(lambda leaf: 0.5 * leaf, params)
        return stream

    return make


@pytest.mark.thorough
def test_a_step_is_the_same_on_several_devices(beginning, same_on_devices):
    same_on_devices(beginning)


def test_it_learns_the_same_for_a_seed(beginning, fitted):
    runs = [fitted(beginning(4), 60, optimizer=optax.sgd(0.3)) for _ in range(2)]  # same program as in the test above
    assert runs[0][0] == runs[1][0]
    jax.tree.map(np.testing.assert_array_equal, runs[0][1], runs[1][1])
    losses = runs[0][0]
    assert np.mean(losses[-6:]) < 0.7 * np.mean(losses[:6])


@pytest.mark.parametrize("lacking", ["tokens", "lengths", "rating"])
def test_it_needs_texts_and_ratings_in_train(events, lacking):
    nothing = events.tokens._replace(ids=events.tokens.ids[:0], offsets=np.zeros(len(events) + 1, np.int64))
    other = {
        "tokens": {"tokens": None},
        "lengths": {"tokens": nothing},
        "rating": {"rating": np.full(len(events), np.nan, np.float32)},
    }
    with pytest.raises(ValueError, match="no texts, or no ratings"):
        stream_of(dataclasses.replace(events, **other[lacking]))

"""Arrays in learning order, standardised on train, texts shuffled within their part."""

import itertools

import numpy as np
import pytest

from drex_jax.data.events import build_events, in_learning_order, learning_order, standardise
from drex_jax.data.interactions import Interactions
from drex_jax.data.split import Split, split_interactions
from drex_jax.data.strings import Strings
from drex_jax.data.tokens import Tokens

N = 40


def table(seed=0):
    rng = np.random.default_rng(seed)

    def numbered(ids):
        numbers: dict[int, int] = {}
        return np.array([numbers.setdefault(int(k), len(numbers)) for k in ids], np.int32)

    user, item = numbered(rng.integers(0, 8, N)), numbered(rng.integers(0, 9, N))
    picture = rng.normal(5, 2, (N, 2)).astype(np.float32)
    picture[rng.random(N) < 0.3] = np.nan
    interactions = Interactions(
        name="small",
        user_ids=Strings.of(f"user {k}" for k in range(user.max() + 1)),
        item_ids=Strings.of(f"item {k}" for k in range(item.max() + 1)),
        user=user,
        item=item,
        timestamp=np.arange(N) * 1e5,
        rating=rng.integers(1, 6, N).astype(np.float32),
        text=Strings.of(f"review {k}" for k in range(N)),
        vectors={"picture": picture},
        rating_range=(1.0, 5.0),
        item_vectors={"shape": rng.normal(size=(item.max() + 1, 3)).astype(np.float32)},
    )
    interactions.validate()
    return interactions


def tokens() -> Tokens:
    """Return one token for each text: its number."""
    ids = np.array([int(review.split()[1]) + 1 for review in table().text], np.int32)
    return Tokens(ids, np.arange(len(ids) + 1), ids % 2 == 0)


@pytest.mark.parametrize("kind", ["global_time", "leave_last_out", "random"])
def test_in_the_order_of_learning(kind):
    interactions = table()
    parts = split_interactions(interactions, kind, 0.2, 0.2, seed=3)
    rows = np.concatenate([parts.train, parts.validation, parts.test])
    ordered = in_learning_order(interactions, parts)
    assert sorted(rows) == list(range(N))
    np.testing.assert_array_equal(learning_order(parts), rows)
    for k, row in enumerate(rows):
        assert ordered.user_ids[ordered.user[k]] == interactions.user_ids[interactions.user[row]]
        np.testing.assert_array_equal(
            ordered.item_vectors["shape"][ordered.item[k]], interactions.item_vectors["shape"][interactions.item[row]]
        )
        assert ordered.item_ids[ordered.item[k]] == interactions.item_ids[interactions.item[row]]
        assert ordered.text[k] == interactions.text[row]
    np.testing.assert_array_equal(ordered.rating, interactions.rating[rows])
    np.testing.assert_array_equal(ordered.timestamp, interactions.timestamp[rows])
    np.testing.assert_array_equal(ordered.vectors["picture"], interactions.vectors["picture"][rows])
    for numbers in (ordered.user, ordered.item):
        highest = -1
        for number in numbers:  # each new one is the next number
            assert number <= highest + 1
            highest = max(highest, number)
    if kind == "global_time":
        assert ordered.sha256() == interactions.sha256()
    else:
        assert (rows != np.arange(N)).any()


def test_users_and_items_without_interactions_come_last():
    interactions = table()
    parts = Split("given", np.arange(30, 34), np.arange(34, 37), np.arange(37, N), {})
    ordered = in_learning_order(interactions, parts)
    assert len(ordered) == N - 30
    assert sorted(ordered.user_ids) == sorted(interactions.user_ids)
    assert ordered.user.max() + 1 == len(set(interactions.user[30:]))


def test_standardise_knows_train_only():
    rng = np.random.default_rng(0)
    values = rng.normal(3, 4, (50, 3)).astype(np.float32)
    values[:, 1] = 0.1  # constant
    values[[4, 33]] = np.nan
    scaled = standardise(values, 30)
    train = np.delete(scaled[:30], 4, axis=0)
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(train.std(0), [1, 0, 1], atol=1e-5)
    assert np.isnan(scaled[[4, 33]]).all()
    assert np.isfinite(np.delete(scaled, [4, 33], axis=0)).all()
    assert scaled.dtype == np.float32
    other = values.copy()
    other[30:] *= 100
    other[31, 1] = 7.0  # a column constant in train stays without information
    again = standardise(other, 30)
    np.testing.assert_array_equal(again[:30], scaled[:30])
    assert again[31, 1] == 0


def test_a_vector_that_train_never_has_is_missing():
    values = np.full((6, 2), np.nan, np.float32)
    values[4:] = 1.0
    assert np.isnan(standardise(values, 4)).all()


def test_shuffled_texts_stay_in_their_part():
    interactions, sizes = table(), (25, 8, 7)
    plain = build_events(interactions, sizes, tokens())
    shuffled = build_events(interactions, sizes, tokens(), shuffle_texts=np.random.default_rng(0))
    begins = np.cumsum((0, *sizes))
    for begin, end in itertools.pairwise(begins):
        assert sorted(shuffled.tokens.ids[begin:end]) == sorted(plain.tokens.ids[begin:end])
        assert (shuffled.tokens.ids[begin:end] != plain.tokens.ids[begin:end]).any()
    np.testing.assert_array_equal(shuffled.rating, plain.rating)
    np.testing.assert_array_equal(shuffled.user, plain.user)


def test_a_part_holds_its_rows_and_texts():
    events = build_events(table(), (25, 8, 7), tokens())
    part = events[25:33]
    assert len(part) == len(part.tokens.lengths) == len(part.tokens.cut) == 8
    assert part.tokens.truncated == int(events.tokens.cut[25:33].sum())
    ids = [part.tokens.ids[a:b].tolist() for a, b in itertools.pairwise(part.tokens.offsets)]
    assert ids == [[k + 1] for k in range(25, 33)]
    np.testing.assert_array_equal(part.vectors["picture"], events.vectors["picture"][25:33])
    assert (part.num_users, part.num_items) == (events.num_users, events.num_items)
    assert part.item_vectors["shape"] is events.item_vectors["shape"]
    assert len(part.item_vectors["shape"]) == part.num_items
    empty = events[9:5]
    assert len(empty) == len(empty.tokens.lengths) == 0
    with pytest.raises(ValueError, match="stride of 2"):
        events[::2]
    assert build_events(table(), (25, 8, 7), None).tokens is None


def test_take_copies_all_columns_of_the_rows():
    events = build_events(table(), (25, 8, 7), tokens())
    rows = np.array([30, 2, 30])
    taken = events.take(rows)
    for name in ("user", "item", "timestamp", "rating"):
        np.testing.assert_array_equal(getattr(taken, name), getattr(events, name)[rows])
    np.testing.assert_array_equal(taken.vectors["picture"], events.vectors["picture"][rows])
    assert taken.tokens.ids.tolist() == [31, 3, 31]
    np.testing.assert_array_equal(taken.tokens.cut, events.tokens.cut[rows])
    assert (taken.num_users, taken.num_items) == (events.num_users, events.num_items)
    fewer = taken.tokens.keep(np.array([True, False, True]))
    assert (fewer.ids.tolist(), fewer.offsets.tolist()) == ([31, 31], [0, 1, 1, 2])
    both = Tokens.concatenate([fewer, events.tokens.part(4, 6)])
    assert (both.ids.tolist(), both.offsets.tolist()) == ([31, 31, 5, 6], [0, 1, 1, 2, 3, 4])
    assert build_events(table(), (25, 8, 7), None).take(rows).tokens is None

import re

import numpy as np
import pytest

from drex_jax.data.strings import Strings
from drex_jax.data.synthetic.text import BLAME, PRAISE
from drex_jax.data.synthetic.world import NUM_ASPECTS, generate_world
from drex_jax.models.running_bias import BiasState, fit_running_bias, fit_static_bias

DEFAULT = {
    "interactions": 6000,
    "users": 300,
    "items": 200,
    "missing_text": 0.1,
    "missing_rating": 0.0,
    "noise": 0.5,
    "seed": 0,
}


@pytest.fixture(scope="module")
def world():
    return generate_world(**DEFAULT)


@pytest.fixture(scope="module")
def texts(world):
    return [text for chunk in world.chunks() for text in chunk.text]


def words(text):
    return re.findall("[a-z]+", text)


def test_is_deterministic_and_seeded(world):
    same, other = generate_world(**DEFAULT), generate_world(**{**DEFAULT, "seed": 1})
    for first, second in zip(world.chunks(), same.chunks(), strict=True):
        assert first.text.data.tobytes() == second.text.data.tobytes()
        np.testing.assert_array_equal(first.rating, second.rating)
        np.testing.assert_array_equal(first.timestamp, second.timestamp)
        assert list(first.user) == list(second.user)
    assert other.aspect_words != world.aspect_words
    assert not np.array_equal(other.rating, world.rating)


def test_chunks_hold_every_interaction_in_time_order():
    big = generate_world(**{**DEFAULT, "interactions": 20_000, "missing_rating": 0.3})
    chunks = list(big.chunks())
    assert len(chunks) > 1
    assert sum(len(chunk) for chunk in chunks) == 20_000
    timestamp = np.concatenate([chunk.timestamp for chunk in chunks])
    assert (np.diff(timestamp) >= 0).all()
    assert list(Strings.concatenate([chunk.item for chunk in chunks])) == [big.item_ids[i] for i in big.item]
    rating = np.concatenate([chunk.rating for chunk in chunks])
    assert rating.dtype == np.float32
    assert 0.27 < np.isnan(rating).mean() < 0.33
    text = Strings.concatenate([chunk.text for chunk in chunks])
    np.testing.assert_array_equal(text.lengths > 0, big.has_text)
    assert 0.08 < (~big.has_text).mean() < 0.12


def test_times_come_in_bursts_with_ties(world):
    assert world.timestamp[0] >= 1_420_070_400
    assert (world.timestamp == np.floor(world.timestamp)).all()
    order = np.lexsort((world.timestamp, world.user))
    gaps = np.diff(world.timestamp[order])[np.diff(world.user[order]) == 0]
    assert 0.5 < (gaps < 3600).mean() < 0.9
    assert (gaps == 0).any()


def test_hubs_and_no_item_twice(world):
    counts = np.sort(np.bincount(world.item, minlength=200))
    assert counts[-1] > 5 * np.median(counts)
    pairs = world.user.astype(np.int64) * 200 + world.item
    assert len(np.unique(pairs)) == len(pairs)


def test_ratings_are_half_steps_around_the_truth(world):
    assert set(np.unique(world.rating)) <= set(np.arange(2, 11) / 2)
    assert world.truth.min() >= 1
    assert world.truth.max() <= 5
    slow = sum((float(r) - float(t)) ** 2 for r, t in zip(world.rating, world.truth, strict=True)) / len(world)
    assert world.noise_floor == pytest.approx(slow, rel=1e-6)
    exact = generate_world(**{**DEFAULT, "noise": 0.0})
    assert exact.noise_floor < 0.5**2 / 12 * 1.2  # only rounding
    assert np.abs(exact.rating - exact.truth).max() <= 0.25 + 1e-6


def test_truth_is_preference_times_quality(world):
    """Within a session of a user only the item differs: its appeal and the qualities that the user cares about."""
    quality = world.item_quality
    cared = np.stack([quality[i, world.user_aspects[u]].mean() for u, i in zip(world.user, world.item, strict=True)])
    others = np.array([quality[i].mean() for i in world.item])
    assert np.corrcoef(cared, world.truth)[0, 1] > 0.5
    assert np.corrcoef(cared, world.truth)[0, 1] > np.corrcoef(others, world.truth)[0, 1] + 0.1


def test_preferences_drift(world):
    """The wishes of a user change over time."""
    late = world.timestamp > np.median(world.timestamp)
    squared, by_chance = [], []
    for user in range(300):
        first_theme = np.isin(world.aspect, world.user_aspects[user][:2])
        early_rows, late_rows = (world.user == user) & ~late, (world.user == user) & late
        if min(early_rows.sum(), late_rows.sum()) >= 8:
            share = first_theme[world.user == user].mean()
            squared.append((first_theme[early_rows].mean() - first_theme[late_rows].mean()) ** 2)
            by_chance.append(share * (1 - share) * (1 / early_rows.sum() + 1 / late_rows.sum()))
    assert len(squared) > 30
    assert np.sum(squared) > 1.6 * np.sum(by_chance)  # the ratio is 1 without drift


def test_reviews_are_plain_sentences(world, texts):
    for text, present in zip(texts, world.has_text, strict=True):
        assert bool(text) == present
        if text:
            assert re.fullmatch(r"[a-z]+((, |\. | )[a-z]+)*\.", text)
            assert 10 <= len(text.split()) <= 120


def test_vocabulary_is_zipfian(texts):
    counts = {}
    for text in texts:
        for word in words(text):
            counts[word] = counts.get(word, 0) + 1
    assert max(counts, key=lambda word: counts[word]) == "the"
    assert 4000 < len(counts) <= 5000 + 200 + 20


def test_reviews_name_the_aspects_they_say(world, texts):
    aspect_of = {word: number for number, group in enumerate(world.aspect_words) for word in group}
    assert len(aspect_of) == NUM_ASPECTS * 10
    for text, aspect, off in zip(texts, world.aspect, world.off_aspect, strict=True):
        if text:
            named = {aspect_of[word] for word in words(text) if word in aspect_of}
            assert named == {int(aspect)} | ({int(off)} if off >= 0 else set())


def test_three_in_ten_name_what_the_user_does_not_care_about(world):
    cares = (world.user_aspects[world.user] == world.off_aspect[:, None]).any(axis=1)
    assert not cares.any()
    assert 0.27 < (world.off_aspect >= 0).mean() < 0.33
    assert (world.user_aspects[world.user] == world.aspect[:, None]).any(axis=1).all()


def test_praise_follows_quality(world, texts):
    score, quality = [], []
    for text, item, aspect, off in zip(texts, world.item, world.aspect, world.off_aspect, strict=True):
        value = sum((word in PRAISE) - (word in BLAME) for word in words(text))
        if value and off < 0:
            score.append(value)
            quality.append(world.item_quality[item, aspect])
    assert np.corrcoef(score, quality)[0, 1] > 0.6


def test_counting_aspect_words_finds_the_truth(world, texts):
    """Keywords can be found: an ideal reader of the reviews reaches a precision@5 above 0.9."""
    named = {word for group in world.aspect_words for word in group}
    for column, truth in ((world.user, world.user_aspects), (world.item, world.item_aspects)):
        profiles = {}
        for number, text in zip(column, texts, strict=True):
            profile = profiles.setdefault(number, {})
            for word in words(text):
                if word in named:
                    profile[word] = profile.get(word, 0) + 1
        precision = []
        for number, profile in profiles.items():
            true = {word for aspect in truth[number] for word in world.aspect_words[aspect]}
            top = sorted(profile, key=lambda word, profile=profile: -profile[word])[:5]
            precision.append(sum(word in true for word in top) / 5)
        assert np.mean(precision) > 0.9


def test_biases_leave_room_above_the_floor(world):
    n = len(world)
    train, validation = int(n * 0.8), int(n * 0.9)
    user, item, rating = world.user, world.item, world.rating
    known = (user[:validation], item[:validation], rating[:validation], train, 300, 200, (1.0, 5.0))
    static, running = fit_static_bias(*known), fit_running_bias(*known)
    _, terms = running.run(user, item, rating, BiasState.zeros(300, 200))

    def mse(predicted):
        return np.mean((np.clip(predicted, 1, 5) - rating[validation:]) ** 2)

    floor = np.mean((world.truth - rating)[validation:] ** 2)
    mean, still = mse(np.full(n - validation, static.mean)), mse(static.predict(user[validation:], item[validation:]))
    moving = mse(running.combine(terms)[validation:])
    assert mean > still > moving > 2 * floor


def test_tiny_worlds():
    for size in (1, 2, 7):
        world = generate_world(size, 1, 1, 0.0, 1.0, 0.5, 0)
        (chunk,) = world.chunks()
        assert len(chunk) == size
        assert np.isnan(chunk.rating).all()
        assert np.isnan(world.noise_floor)
    (chunk,) = generate_world(5, 3, 2, 1.0, 0.0, 0.5, 0).chunks()
    assert list(chunk.text) == [""] * 5

"""Deletion and insertion curves, compared with single influences."""

import json

import numpy as np
import pytest

from drex_jax.explain import curves, occlusion
from drex_jax.explain.curves import STEPS
from drex_jax.explain.occlusion import Occlusion

LAST_STEP = STEPS[-1]


@pytest.fixture(scope="module")
def explained(make_events, make_drex):
    events = make_events(n=60, seed=3, users=4, items=5, reviewed=0.9)
    stream, params = make_drex(events, residual=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(occlusion, "LEAST", 4096)  # one program for all
        return Occlusion(stream.model, params, events)


@pytest.fixture(scope="module")
def pairs(explained):
    return curves.choose_pairs(explained, 40, 3, np.random.default_rng(0))


def test_pairs_are_those_with_something_behind_them(explained):
    events = explained.recording.events
    every = curves.choose_pairs(explained, 20, 1000, np.random.default_rng(0))
    expected = [
        k
        for k in range(20, len(events))
        if min((ids[:k] == ids[k]).sum() for ids in (events.user, events.item)) >= curves.LEAST_INTERACTIONS
    ]
    assert [pair.moment for pair in every] == expected
    assert all((pair.user, pair.item) == (events.user[pair.moment], events.item[pair.moment]) for pair in every)
    some = curves.choose_pairs(explained, 20, 4, np.random.default_rng(1))
    assert len(some) == 4
    assert set(some) < set(every)


@pytest.mark.parametrize("side", ["user", "item"])
def test_curves_of_interactions_begin_with_single_influences_and_end_with_all(explained, pairs, side, monkeypatch):
    monkeypatch.setattr("drex_jax.explain.curves.AT_ONCE", 2)
    questions = list(curves.interaction_questions(explained, pairs, side, np.random.default_rng(0)))
    found = curves.measure(explained, iter(questions))
    for number, pair in enumerate(pairs):
        influences = getattr(explained.influences(pair.user, pair.item, pair.moment), side)
        changes = [each.change for each in influences]
        first = {name: values[number, 0, 1] for name, values in found.change.items()}
        assert first["most"] == pytest.approx(-changes[0], abs=2e-5)
        assert first["least"] == pytest.approx(-changes[-1], abs=2e-5)
        assert first["for"] == pytest.approx(-max(changes), abs=2e-5)
        assert first["against"] == pytest.approx(-min(changes), abs=2e-5)
        for name in found.score:
            deletion, insertion = found.score[name][number]
            assert deletion[0] == pytest.approx(0, abs=2e-5)
            if len(changes) <= LAST_STEP:
                assert insertion[-1] == pytest.approx(0, abs=2e-5)
                assert deletion[-1] == pytest.approx(insertion[0], abs=2e-5)
    assert (found.state["most"][:, 0, 1:] > 0).all()
    figures = curves.figures(found)
    assert json.loads(json.dumps(figures)) == figures
    assert figures["pairs"] == len(pairs)
    assert figures["score"]["deletion"]["random"]["against_random"] == [0, 0, 0]
    middle, low, high = figures["score"]["insertion"]["most"]["area"]
    assert low <= middle <= high
    assert middle == pytest.approx(curves.area(found.score["most"][:, 1]).mean())


def test_keywords_are_taken_out_of_the_reviews_or_stand_there_alone(explained, pairs):
    events = explained.recording.events
    words = events.tokens._replace(ids=np.where(events.tokens.ids < 3, -1, events.tokens.ids - 3))  # 0 and 1: no word
    profiles = [[4, 9, 2, 11, 7]] * events.num_users
    pools = {"even": [list(range(0, 20, 2))] * events.num_users}

    def ask(profiles):
        rng = np.random.default_rng(0)
        return list(curves.keyword_questions(explained, pairs, "user", words, profiles, pools, rng))

    assert not ask([[4, 50, 51, 52]] * events.num_users)  # too few of the profile's words are there
    questions = ask(profiles)
    assert questions
    for question in questions:
        _, rows, kept, texts = question.variants
        assert kept.all()
        assert texts is not None
        assert question.names == ("keywords", *("random",) * curves.DRAWS, *("even",) * curves.DRAWS)
        own = words.take(rows).ids
        named = [word for word in profiles[0] if word in own]

        def spelt(variant, rows=rows, texts=texts):
            return (texts.part(variant * len(rows), (variant + 1) * len(rows)).ids - 3).tolist()

        assert spelt(0) == (events.tokens.take(rows).ids - 3).tolist()
        for number, k in enumerate(STEPS):
            gone, given = spelt(1 + number), spelt(1 + len(STEPS) + number)
            assert gone == [word for word in spelt(0) if word not in named[:k]]
            assert given == [word for word in spelt(0) if word in named[:k]]
        for order, name in enumerate(question.names[1:], 1):
            drawn = set(spelt(1 + 2 * len(STEPS) * order + 2 * len(STEPS) - 1))
            assert not drawn & set(profiles[0])
            assert name == "random" or all(word % 2 == 0 for word in drawn)
            assert question.removed[order] == sum(word in drawn for word in spelt(0))
    found = curves.measure(explained, iter(questions))
    assert found is not None
    assert found.score["keywords"][:, 0, 0] == pytest.approx(0, abs=2e-5)
    assert (found.state["keywords"][:, 0, 1:] > 0).all()
    assert curves.measure(explained, iter([])) is None


def test_words_are_matched_by_their_count():
    count, rng = np.array([0, 9, 4, 4, 1, 8, 5]), np.random.default_rng(0)
    assert curves.matched(count, np.array([1, 2]), np.array([3, 4, 5, 6]), rng).tolist() == [5, 3]
    assert sorted(curves.matched(count, np.array([1, 2, 3]), np.array([4, 6]), rng)) == [4, 6]
    draws = {curves.matched(count, np.array([6]), np.array([2, 3]), rng)[0] for _ in range(20)}
    assert draws == {2, 3}


def test_area_is_the_mean_height():
    line = np.array(STEPS, float)
    assert curves.area(np.stack([line, np.full(len(STEPS), 3.0)])) == pytest.approx([LAST_STEP / 2, 3.0])

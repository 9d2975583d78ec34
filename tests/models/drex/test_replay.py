"""Continuing after a run, in one piece, in many or one by one, gives the states of the whole stream."""

import dataclasses

import numpy as np
import pytest

from drex_jax.models.drex import counters, replay
from drex_jax.models.protocol import States


def pieces(events, cuts):
    for begin, end in zip((0, *cuts), (*cuts, len(events)), strict=True):
        yield events[begin:end]


CUTS = {"one piece": (), "one by one": tuple(range(1, 30)), "pieces, one of them empty": (4, 4, 20)}


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("parts", ["everything", "ratings alone", "mlp that only ranks"])
def test_states_are_those_of_the_whole_stream(make_events, make_drex, cuts, parts):
    """Starting from nothing, so that every user and item is new once, with texts, pictures, ratings and gaps."""
    options = {
        "everything": {"residual": True},
        "ratings alone": {"vector_modalities": (), "time_modality": False, "partner": False},
        "mlp that only ranks": {"head": "mlp", "rating_weight": 0.0, "rating": False, "ranking_weight": 1.0},
    }[parts]
    events = make_events(n=30, reviewed=0.6 if parts == "everything" else 0.0, spare=0)
    stream, params = make_drex(events, offsets=False, **options)
    whole, _ = stream.observe(params, stream.start(params), stream.segments()[0])
    size = whole.user.shape[1]
    empty = States(*(np.zeros((0, size), np.float32) for _ in range(2)))
    live = replay.Replay(stream.model, params, empty, counters.History.start(0, 0))
    for piece in pieces(events, CUTS[cuts]):
        live.advance(piece)
    for found, expected in zip(live.states, whole, strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def test_a_pair_of_a_model_that_only_ranks_has_its_ranking_score(make_events, make_drex):
    stream, params = make_drex(
        make_events(n=30, reviewed=0.0), offsets=False, rating_weight=0.0, rating=False, ranking_weight=1.0
    )
    user, item = (side[:4] for side in stream.start(params))
    model = stream.model
    expected = np.diagonal(model.rank(params, user, item))
    np.testing.assert_allclose(model.score(params, user, item), expected, rtol=1e-5, atol=1e-6)


def test_going_on_from_the_middle_of_a_run_with_offsets(make_events, make_drex):
    """States of users and items in train include their offset; later ones have no offset."""
    events = make_events(n=40, seed=3, users=15, items=15, spare=0)
    stream, params = make_drex(events, (25, 5, 10), offsets=True)
    train, validation, test = stream.segments()
    middle, _ = stream.observe(params, stream.start(params), train)
    after, _ = stream.observe(params, middle, validation)
    whole, _ = stream.observe(params, after, test)
    met = [int(ids[:25].max()) + 1 for ids in (events.user, events.item)]
    middle = States(*(np.asarray(side)[:many] for side, many in zip(middle, met, strict=True)))
    seen = dataclasses.replace(events[:25], num_users=met[0], num_items=met[1])
    _, past = counters.advance(seen, counters.History.start(*met), stream.model.options.bias)
    assert met[0] < events.num_users or met[1] < events.num_items
    live = replay.Replay(stream.model, params, middle, past)
    for piece in pieces(events[25:], (3, 9)):
        live.advance(piece)
    for found, expected in zip(live.states, whole, strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def test_states_of_others_stay_as_they_are_and_few_programs_serve_all(make_events, make_drex):
    events = make_events(n=60, seed=1, users=20, items=20, spare=0)
    stream, params = make_drex(events, offsets=False)
    carry, _ = stream.observe(params, stream.start(params), stream.segments()[0])
    past = counters.History.start(events.num_users, events.num_items)
    _, past = counters.advance(events, past, stream.model.options.bias)
    live = replay.Replay(stream.model, params, carry, past)
    for n in (3, 4, 3, 4):
        before = [side.copy() for side in live.states]
        piece = events[10 : 10 + n]
        live.advance(dataclasses.replace(piece, timestamp=np.full(n, events.timestamp[-1])))
        for side, old, ids in zip(live.states, before, (piece.user, piece.item), strict=True):
            untouched = np.setdiff1d(np.arange(len(old)), ids)
            np.testing.assert_array_equal(side[untouched], old[untouched])
            assert (np.abs(side[ids] - old[ids]).max(1) > 0).all()
    assert live._continuation._observe._cache_size() <= 2

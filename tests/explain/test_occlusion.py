"""Occlusion, compared with a replay of the stream without the interaction."""

import dataclasses

import numpy as np
import pytest

from drex_jax.data.tokens import Tokens
from drex_jax.explain import occlusion
from drex_jax.explain.occlusion import Occlusion, Variants
from drex_jax.explain.recording import Recording

TIGHT = {"rtol": 2e-5, "atol": 2e-5}
KINDS = {
    "texts, pictures and offsets": ({"reviewed": 0.6}, {"residual": True, "offsets": True}),
    "ratings alone": ({}, {"vector_modalities": (), "offsets": False}),
}


@pytest.fixture(scope="module", params=KINDS)
def world(request, make_events, make_drex):
    """A dense stream: (events, model, parameters, occlusion)."""
    of_events, of_model = KINDS[request.param]
    events = make_events(n=48, seed=2, users=9, items=12, **of_events)
    stream, params = make_drex(events, **of_model)
    return events, stream, params, Occlusion(stream.model, params, events)


def replayed(explained, params, events):
    """Return the rows of all users and items after a replay of other events with the same numbers."""
    twin = Recording.of(explained._continuation, params, events)
    return twin.user.now, twin.item.now


def test_a_recording_ends_where_the_model_does(world, replay):
    events, stream, params, explained = world
    carry, trace = replay(stream, params)
    for name in ("user", "item"):
        side = explained.side(name)
        np.testing.assert_allclose(side.now, getattr(carry, name), **TIGHT)
        np.testing.assert_allclose(side.rows, getattr(trace, f"{name}_before"), **TIGHT)
        for owner in range(len(side.now)):
            np.testing.assert_array_equal(side.met(owner, 30), np.flatnonzero(side.number[:30] == owner))
            np.testing.assert_array_equal(side.row(owner, len(events)), side.now[owner])
        np.testing.assert_array_equal(side.row(side.number[20], 20), side.rows[20])


def test_each_left_out_is_the_stream_without_it_where_that_is_said_to_be_exact(world):
    events, _, params, explained = world
    moment = 40 if events.tokens is None else None
    end = len(events) if moment is None else moment
    item = int(events.item[moment or -1])
    exact, other = 0, []
    for user in range(events.num_users):
        found = explained.influences(user, item, moment)
        pair = {name: explained.side(name).row(owner, end)[None] for name, owner in (("user", user), ("item", item))}
        assert found.score == pytest.approx(explained.scores(**pair)[0], abs=1e-6)
        for name, owner in (("user", user), ("item", item)):
            influences = getattr(found, name)
            met = explained.side(name).met(owner, end)
            assert sorted(each.row for each in influences) == met[-occlusion.LAST :].tolist()
            sizes = [abs(each.change) for each in influences]
            assert sizes == sorted(sizes, reverse=True)
            for each in [each for each in influences if each.exact] or influences[:1]:
                twin = replayed(explained, params, events.take(np.setdiff1d(np.arange(end), each.row)))
                error = found.score - each.change - explained.scores(twin[0][user][None], twin[1][item][None])[0]
                if each.exact:
                    exact += 1
                    assert error == pytest.approx(0, abs=2e-5)
                else:
                    other.append(abs(error))
    assert exact > 5
    assert max(other) > 1e-3  # what is not said to be exact need not be


def test_sets_and_other_words_against_the_stream_that_has_them(make_events, make_drex):
    """Every item occurs once, so holding partner states at recorded values changes nothing."""
    events = make_events(n=30, seed=5, users=3, reviewed=0.8)
    events = dataclasses.replace(events, item=np.arange(30, dtype=np.int32), num_items=30)
    stream, params = make_drex(events, offsets=True, residual=True)
    explained = Occlusion(stream.model, params, events)
    met = explained.side("user").met(1, 30)
    rows, rng = met[2:], np.random.default_rng(0)
    kept = rng.random((6, len(rows))) < 0.5
    kept[0], kept[1] = True, False
    texts = events.tokens.take(np.tile(rows, len(kept)))
    cut = texts.keep(rng.random(len(texts.ids)) < 0.5)
    found, worded, single = explained.rows(
        [
            Variants("user", rows, kept),
            Variants("user", rows, kept, cut),
            Variants("item", met[:1], np.eye(1, dtype=bool)),
        ]
    )
    np.testing.assert_allclose(found[0], explained.side("user").now[1], **TIGHT)
    np.testing.assert_allclose(found[1], explained.side("user").rows[rows[0]], **TIGHT)
    np.testing.assert_allclose(single[0], explained.side("item").now[met[0]], **TIGHT)
    for variant, mask in enumerate(kept):
        stays = np.setdiff1d(np.arange(30), rows[~mask])
        user, _ = replayed(explained, params, events.take(stays))
        np.testing.assert_allclose(found[variant], user[1], **TIGHT)
        part = cut.part(variant * len(rows), (variant + 1) * len(rows))
        source = np.arange(30)
        source[rows] = 30 + np.arange(len(rows))
        tokens = Tokens.concatenate([events.tokens, part]).take(source)
        user, _ = replayed(explained, params, dataclasses.replace(events, tokens=tokens).take(stays))
        np.testing.assert_allclose(worded[variant], user[1], **TIGHT)
    influences = explained.influences(1, 29 if events.user[29] != 1 else 0).user
    assert all(each.exact for each in influences)
    assert explained._continuation._observe._cache_size() == 1  # one program for all of this


def test_of_somebody_never_met_there_is_nothing_to_leave_out(world):
    events, stream, params, explained = world
    user, item = stream.model.cold_start(params, None)
    found = explained.influences(-1, -1)
    assert found[1:] == ([], [])
    assert found.score == pytest.approx(float(stream.model.score(params, user[None], item[None])[0]), abs=1e-6)
    only = explained.influences(-1, 0)
    assert not only.user
    assert only.item
    assert explained.influences(0, 0, moment=0)[1:] == ([], [])
    with pytest.raises(ValueError, match="without interactions"):
        Occlusion(stream.model, params, events[:0])

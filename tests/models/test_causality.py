"""An interaction's prediction and ranking depend on earlier interactions, not on itself or later ones."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drex_jax.models.drex.stream import WindowStream

ROUNDING = 2e-6  # a changed review can change padded shapes and so the order of sums
AT = 18  # the interaction whose past stays unchanged


def replayed(stream, rank, params, segments, item):
    """Return, for each interaction, its predicted rating and its user's scores of all items at that moment."""
    carry, ratings, scores = stream.start(params), [], []
    for segment, begin in zip(segments, (0, 14, 20), strict=True):
        table = np.array(carry.item)
        carry, trace = stream.observe(params, carry, segment)
        ratings.append(stream.model.rate(params, trace.user_before, trace.item_before))
        for k in range(len(segment)):
            scores.append(rank(params, trace.user_before[k : k + 1], jnp.asarray(table))[0])
            table[item[begin + k]] = trace.item_after[k]
    return np.concatenate(ratings), np.stack(scores)


def changed(events, rows, what):
    """Return the stream with one modality changed in `rows`."""
    if what == "rating":
        rating = events.rating.copy()
        rating[rows] = np.where(rating[rows] == 5, 1, 5)
        return dataclasses.replace(events, rating=rating)
    if what == "review":
        ids = events.tokens.ids.copy()
        for k in rows:
            own = slice(events.tokens.offsets[k], events.tokens.offsets[k + 1])
            ids[own] = ids[own] % 19 + 1
        return dataclasses.replace(events, tokens=events.tokens._replace(ids=ids))
    picture = events.vectors["picture"].copy()
    picture[rows] = 3.0
    return dataclasses.replace(events, vectors={"picture": picture})


@pytest.fixture(scope="module", params=["dot", "mlp"])
def world(request, make_events, make_drex):
    events = make_events(26, reviewed=0.999, users=4, items=5)
    user = int(events.user[AT])
    earlier = int(np.flatnonzero(events.user[:AT] == user)[-1])

    options = {"residual": True, "ranking_weight": 1.0, "head": request.param}
    stream, params = make_drex(events, (14, 6, 6), **options)
    rank = jax.jit(stream.model.rank)

    def run(other):
        """Replay another stream from the start; shapes are equal, so all streams share the compiled functions."""
        segments = WindowStream(stream.model.options, other, (14, 6, 6)).segments()
        return replayed(stream, rank, params, segments, other.item)

    return events, run, run(events), earlier


@pytest.mark.parametrize("what", ["rating", "review", "picture"])
def test_predictions_and_rankings_know_only_the_past(world, what):
    events, run, (ratings, scores), earlier = world
    later_ratings, later_scores = run(changed(events, range(AT, 26), what))
    np.testing.assert_allclose(later_ratings[: AT + 1], ratings[: AT + 1], rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(later_scores[: AT + 1], scores[: AT + 1], rtol=0, atol=ROUNDING)
    assert np.abs(later_ratings[AT + 1 :] - ratings[AT + 1 :]).max() > 1e-4  # later ones do change

    before_ratings, before_scores = run(changed(events, [earlier], what))
    assert np.abs(before_ratings[AT] - ratings[AT]) > 1e-4
    assert np.abs(before_scores[AT] - scores[AT]).max() > 1e-4
    np.testing.assert_allclose(before_ratings[: earlier + 1], ratings[: earlier + 1], rtol=0, atol=ROUNDING)

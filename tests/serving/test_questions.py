"""Arguments of questions that are refused; answers are of the moment at which they were asked for."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from drex_jax import Recommender
from drex_jax.common.errors import UserError


@pytest.fixture(scope="module")
def recommender(finished_popularity: pathlib.Path) -> Recommender:
    """Not to be updated."""
    return Recommender.load(finished_popularity)


@pytest.mark.parametrize(
    "question",
    [
        lambda r: r.recommend(b"user1", 2),
        lambda r: r.recommend(None, 2),
        lambda r: r.recommend({"user1"}, 2),
        lambda r: r.recommend(["user1", None], 2),
        lambda r: r.recommend("user1", 2, candidates="item1"),
        lambda r: r.recommend("user1", 2, candidates=5),
        lambda r: r.recommend_for("item1", 2),
        lambda r: r.recommend_for({"item": "item1"}, 2),
        lambda r: r.recommend_for([{"item": "item1", "rating": 10**400}], 2),
        lambda r: r.stream("user1", 2),
        lambda r: r.predict("user07", "item03"),
        lambda r: r.similar_items(["item1"], 2),
        lambda r: r.explain(b"user1"),
        lambda r: r.knows_item(None),
        lambda r: r.update({"user": "a", "item": "b", "timestamp": 3e9}),
        lambda r: r.update(None),
        lambda r: r.as_of(math.nan),
        lambda r: r.as_of(0).explain("user1", "item1"),
        lambda r: r.as_of(0).save(),
        lambda r: r.as_of(0).save("elsewhere"),
    ],
)
def test_questions_that_are_none(recommender: Recommender, question: Callable[[Recommender], Any]) -> None:
    told = "must be a list|it must be a string|rating outside|seconds since 1970|nothing had happened|cannot be updated"
    with pytest.raises(UserError, match=told):
        question(recommender)
    assert recommender._live.run.log.since == 0


def test_views_and_streams_are_of_when_they_were_made(finished_popularity: pathlib.Path) -> None:
    recommender = Recommender.load(finished_popularity)
    users, ids = ["user1", "ann"], iter(["user1", "ann"])
    view, stream = recommender.as_of(1.6e9), recommender.stream(ids, 4, exclude_seen=False)  # pyright: ignore[reportArgumentType]
    expected = view.recommend(users, 4), recommender.recommend(users, 4, exclude_seen=False)
    most_similar, unseen = view.similar_items("item1", 4), recommender.stream(users, 5)
    left = recommender.recommend(users, 5)
    rows = [{"user": "ann", "item": "new", "timestamp": 2e9}, {"user": "ann", "item": "item1", "timestamp": 2e9}]
    assert recommender.update([*rows, {"user": "user1", "item": "new", "timestamp": 2e9}]).applied == 3
    assert recommender.recommend("ann", 6) != left[1]
    assert view.recommend(users, 4) == expected[0]
    assert list(stream) == expected[1]
    assert list(unseen) == left
    assert view.similar_items("item1", 4) == most_similar
    assert (view.knows_user("ann"), view.knows_item("new"), recommender.knows_item("new")) == (False, False, True)
    np.testing.assert_array_equal(view.predict(["ann"], ["new"]), view.predict(["nobody"], ["nothing"]))
    assert view.as_of(1.9e9).recommend("ann", 5)

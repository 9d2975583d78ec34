"""Compare full ranking by frozen rows with a loop over users with explicit sets."""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drex_jax.data.events import Events
from drex_jax.devices.mesh import Devices
from drex_jax.evaluation import frozen
from drex_jax.evaluation.evaluator import EvaluationOptions, Evaluator, definitions
from drex_jax.evaluation.frozen import FrozenRanking
from drex_jax.metrics.names import RANKING_METRICS
from drex_jax.metrics.ranking import ranking_per_list
from drex_jax.models.baselines.popularity import Popularity
from drex_jax.models.lookup import ClosedForm
from drex_jax.models.protocol import States
from drex_jax.runs.selection import Selection

SELECTION = Selection.of({}, "recall@3", 0.5, 2)
Pairs = tuple[np.ndarray, np.ndarray]


def product(params, user, item):
    return user[:, :1] + item[:, 0] + 0.3171 * (user @ item.T)  # rounded; equal only where both terms are equal


def twin(scores: np.ndarray, relevant: Pairs, masked: Pairs, candidates: set[int]) -> dict[int, list[int]]:
    """Return {user: ascending ranks of the relevant items, 0 for a miss}."""
    lists = {}
    for user in sorted(set(relevant[0].tolist())):
        wanted = {int(i) for u, i in zip(*relevant, strict=True) if u == user}
        hidden = {int(i) for u, i in zip(*masked, strict=True) if u == user}
        allowed = {i: float(scores[user, i]) for i in candidates - hidden if not math.isnan(scores[user, i])}
        found = sorted((i for i in wanted & allowed.keys() if allowed[i] > -math.inf), key=lambda i: -allowed[i])
        ranks = []
        for place, item in enumerate(found):
            ahead = sum(value >= allowed[item] for other, value in allowed.items() if other not in wanted)
            ranks.append(place + 1 + ahead)
        lists[user] = sorted([0] * (len(wanted) - len(found)) + ranks)
    return lists


def problem(seed: int, users: int, items: int, relevant: int, masked: int) -> tuple[States, Pairs, Pairs, np.ndarray]:
    """Return rows with few different values (so ties), NaN and infinity; random pairs that repeat; and candidates."""
    rng = np.random.default_rng(seed)
    user, item = (rng.integers(-1, 2, (count, 2)).astype(np.float32) for count in (users, items))
    item[rng.random(items) < 0.1] = np.nan
    item[rng.random(items) < 0.1] = np.inf  # infinity - infinity gives more NaN
    pairs = [(rng.integers(0, users, n), (rng.random(n) ** 2 * items).astype(np.int64)) for n in (relevant, masked)]
    return States(jnp.asarray(user), jnp.asarray(item)), pairs[0], pairs[1], rng.random(items) < 0.8


def check(ranking: FrozenRanking, carry: States, relevant: Pairs, masked: Pairs, candidates: np.ndarray) -> None:
    with np.errstate(invalid="ignore"):
        scores = np.asarray(product(None, carry.user, carry.item))
    ranks = ranking.ranks({}, carry)
    expected = twin(scores, relevant, masked, set(np.flatnonzero(candidates).tolist()))
    found = {user: sorted(ranks[ranking.lists == k].tolist()) for k, user in enumerate(ranking.users.tolist())}
    assert found == expected


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), block=st.integers(1, 7))
def test_ranks_equal_the_twin(seed: int, block: int) -> None:
    carry, relevant, masked, candidates = problem(seed, 9, 14, 40, 40)
    check(FrozenRanking(product, relevant, masked, candidates, block), carry, relevant, masked, candidates)


@pytest.mark.parametrize(("mapping", "count"), [("shard_map", 8), ("shard_map", 3), ("pmap", 2)])
def test_devices_share_a_block(mapping: str, count: int) -> None:
    devices = Devices(mapping, count)
    carry, relevant, masked, candidates = problem(1, 50, 30, 200, 300)
    ranking = FrozenRanking(product, relevant, masked, candidates, 8, count, devices.compile)
    check(ranking, devices.place(carry), relevant, masked, candidates)


def test_a_user_with_most_of_the_catalogue_relevant_takes_several_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen, "MOST_SLOTS", 4)
    rng = np.random.default_rng(2)
    carry = States(
        jnp.asarray(rng.normal(size=(20, 3)), jnp.float32), jnp.asarray(rng.normal(size=(90, 3)), jnp.float32)
    )
    relevant = np.concatenate([np.full(60, 7), np.arange(20)]), np.concatenate([np.arange(60), np.full(20, 61)])
    masked = np.concatenate([np.full(25, 7), np.full(3, 2)]), np.concatenate([np.arange(62, 87), [0, 61, 5]])
    ranking = FrozenRanking(product, relevant, masked, np.ones(90, bool), 6)
    check(ranking, carry, relevant, masked, np.ones(90, bool))


def test_all_blocks_share_one_compiled_program() -> None:
    carry, relevant, masked, candidates = problem(3, 60, 25, 200, 300)
    shapes = []

    def rank(params, user, item):
        shapes.append((user.shape, item.shape))
        return user @ item.T

    ranking = FrozenRanking(rank, relevant, masked, candidates, 8)
    first, again = ranking.ranks({}, carry), ranking.ranks({}, carry)
    np.testing.assert_array_equal(first, again)
    assert shapes == [((8, 2), (int(candidates.sum()), 2))]


def test_no_lists_and_nothing_but_misses() -> None:
    none = np.zeros(0, np.int64), np.zeros(0, np.int64)
    carry = States(jnp.ones((2, 1)), jnp.ones((3, 1)))
    assert FrozenRanking(product, none, none, np.ones(3, bool)).ranks({}, carry).shape == (0,)
    relevant = np.array([1, 1, 0]), np.array([0, 2, 2])
    ranking = FrozenRanking(product, relevant, (np.array([1]), np.array([0])), np.array([True, True, False]))
    assert ranking.ranks({}, carry).tolist() == [0, 0, 0]
    assert ranking.users.tolist() == [0, 1]


# Models that are evaluated by full ranking only.


def make_events(seed: int = 0) -> tuple[Events, tuple[int, int, int]]:
    """Return unrated interactions; users 8 and 9 and items 12 and 13 first occur after train."""
    rng = np.random.default_rng(seed)
    sizes = (60, 20, 30)
    user = np.concatenate([rng.integers(0, 8, 60), rng.integers(0, 10, 50)]).astype(np.int32)
    item = np.concatenate([rng.integers(0, 12, 60), rng.integers(0, 14, 50)]).astype(np.int32)
    user[:8], item[:12], user[-2:] = np.arange(8), np.arange(12), (8, 9)
    events = Events(user, item, np.arange(110.0), np.full(110, np.nan, np.float32), None, {}, 10, 14)
    return events, sizes


def expected_lists(events: Events, sizes: tuple[int, int, int], mask: str, part: int) -> list[list[int]]:
    """Return the ranks of each user's relevant items by popularity in train."""
    begins = np.cumsum((0, *sizes))
    train = range(sizes[0])
    rows = range(int(begins[part]), int(begins[part + 1]))
    counts = {i: sum(int(events.item[k]) == i for k in train) for i in range(events.num_items)}
    met = {i for i, count in counts.items() if count} if mask == "strict" else set(counts)
    lists = []
    for user in sorted({int(events.user[k]) for k in rows}):
        if mask == "mmrec" and user not in {int(events.user[k]) for k in train}:
            continue
        seen = range(rows.start) if mask == "strict" else train
        touched = {int(events.item[k]) for k in seen if events.user[k] == user}
        wanted = {int(events.item[k]) for k in rows if events.user[k] == user}
        found = sorted(wanted & (met - touched), key=lambda i: -counts[i])
        ahead = [sum(counts[i] >= counts[own] for i in met - touched - wanted) for own in found]
        lists.append([place + 1 + more for place, more in enumerate(ahead)] + [0] * (len(wanted) - len(found)))
    return lists


def evaluator(events: Events, sizes: tuple[int, int, int], mask: str) -> Evaluator:
    options = EvaluationOptions((1, 3, 10), threshold=0.0, rating_range=None, mask=mask, prequential=False)
    return Evaluator(Popularity().stream(events, sizes), events, sizes, options)


@pytest.mark.parametrize("mask", ["strict", "mmrec"])
def test_ranking_alone_equals_the_twin(mask: str) -> None:
    events, sizes = make_events()
    judge = evaluator(events, sizes, mask)
    validated = judge.validate({}, {"recall@3"})
    tested = judge.evaluate_test({}, SELECTION)
    assert set(tested.metrics) == set(tested.lists) == {"ranking"}
    for part, found in ((1, validated), (2, tested.metrics["ranking"])):
        lists = expected_lists(events, sizes, mask, part)
        of = np.repeat(np.arange(len(lists)), [len(ranks) for ranks in lists])
        expected = ranking_per_list(np.concatenate(lists), of, len(lists), (1, 3, 10))
        assert {name: found[name] for name in expected} == pytest.approx(
            {name: values.mean() for name, values in expected.items()}
        )
        assert found["lists"] == len(lists)
        assert found["candidates"] == (12 if mask == "strict" else 14)
        assert sum(0 in ranks for ranks in lists) > (mask == "strict")
    names = {f"{name}@{cutoff}" for name in RANKING_METRICS for cutoff in (1, 3, 10)}
    assert set(judge.validation_metrics()) == names
    assert tested.metrics["ranking"].get("users_dropped") == (None if mask == "strict" else 2.0)
    counts = np.bincount(events.item, minlength=14)  # the returned states are those after all interactions
    np.testing.assert_array_equal(np.asarray(tested.states.item)[:, 0], counts)


def test_what_is_kept_of_each_list_has_the_metrics_as_its_means() -> None:
    events, sizes = make_events(1)
    tested = evaluator(events, sizes, "mmrec").evaluate_test({}, SELECTION)
    kept = tested.lists["ranking"]
    values = ranking_per_list(kept["ranks"], kept["lists"], len(kept["user"]), (1, 3, 10))
    means = {name: float(value.mean()) for name, value in values.items()}
    assert {name: tested.metrics["ranking"][name] for name in means} == means
    assert set(kept["user"].tolist()) == set(events.user[80:].tolist()) & set(events.user[:60].tolist())


def test_prequential_lists_have_the_metrics_as_their_means() -> None:
    events, sizes = make_events(2)
    events = dataclasses.replace(events, rating=np.random.default_rng(0).integers(1, 6, 110).astype(np.float32))
    stream = Popularity().stream(events, sizes)
    stream.model = ClosedForm()  # a model that predicts ratings
    options = EvaluationOptions((3,), threshold=3.0, rating_range=(1.0, 5.0))
    tested = Evaluator(stream, events, sizes, options).evaluate_test({}, SELECTION)
    for way, metrics in tested.metrics.items():
        kept = tested.lists[way]
        values = ranking_per_list(kept["ranks"], kept["lists"], len(kept["user"]), (3,))
        assert {name: metrics[name] for name in values} == {n: float(v.mean()) for n, v in values.items()}
        np.testing.assert_array_equal(kept["row"], np.arange(80, 110))
        np.testing.assert_array_equal(kept["rating"], events.rating[80:])
        assert metrics["mse"] == pytest.approx(np.mean((kept["predicted"] - kept["rating"]) ** 2))
    kept = tested.lists["prequential"]
    np.testing.assert_array_equal(kept["interaction"], 80 + np.flatnonzero(events.rating[80:] >= 3))
    np.testing.assert_array_equal(kept["user"], events.user[kept["interaction"]])


def test_definitions_of_ranking_alone() -> None:
    options = EvaluationOptions((10,), 0.5, None, prequential=False)
    strict, mmrec = definitions(options), definitions(dataclasses.replace(options, mask="mmrec"))
    assert set(strict) == set(mmrec) == {"relevant", "misses", "ties", "lists", "ranking", "mask"}
    assert "seen in train" in strict["ranking"]
    assert "all items of the data set" in mmrec["ranking"]
    assert "dropped" in mmrec["ranking"]
    assert "validation" in strict["mask"]
    assert "validation" not in mmrec["mask"]

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drex_jax.metrics.names import RANKING_METRICS
from drex_jax.metrics.ranking import ranking_metrics, ranking_per_list, rated_items_ranks


def slow_metrics(ranks, cutoff):
    """Compute the metrics of one list by walking down the ranking."""
    relevant = len(ranks)
    hits, gain, precision_sum, reciprocal = 0, 0.0, 0.0, 0.0
    for place in range(1, cutoff + 1):
        if place in ranks:
            hits += 1
            gain += 1 / math.log2(place + 1)
            precision_sum += hits / place
            reciprocal = reciprocal or 1 / place
    ideal = sum(1 / math.log2(place + 1) for place in range(1, min(relevant, cutoff) + 1))
    recall, precision = hits / relevant, hits / cutoff
    return {
        "recall": recall,
        "precision": precision,
        "f1": 2 * recall * precision / (recall + precision) if hits else 0.0,
        "ndcg": gain / ideal,
        "map": precision_sum / min(relevant, cutoff),
        "hr": float(hits > 0),
        "mrr": reciprocal,
    }


one_list = st.tuples(st.sets(st.integers(1, 30), max_size=8), st.integers(0, 3)).filter(lambda x: len(x[0]) + x[1] > 0)


@given(st.lists(one_list, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_equals_a_walk_down_each_list(rankings, random):
    rankings = [list(ranks) + [0] * misses for ranks, misses in rankings]
    pairs = [(rank, number) for number, ranks in enumerate(rankings) for rank in ranks]
    random.shuffle(pairs)
    ranks, lists = np.array(pairs).T
    cutoffs = (1, 5, 20, 40)
    per_list = ranking_per_list(ranks, lists, len(rankings), cutoffs)
    means = ranking_metrics(ranks, lists, len(rankings), cutoffs)
    assert set(means) == set(per_list) == {f"{name}@{k}" for name in RANKING_METRICS for k in cutoffs}
    for cutoff in cutoffs:
        expected = [slow_metrics(ranks, cutoff) for ranks in rankings]
        for name in RANKING_METRICS:
            column = [values[name] for values in expected]
            np.testing.assert_allclose(per_list[f"{name}@{cutoff}"], column, rtol=1e-12, atol=1e-15)
            assert means[f"{name}@{cutoff}"] == pytest.approx(sum(column) / len(column), rel=1e-12, abs=1e-15)


def test_a_worked_example():
    # relevant at places 1 and 3, one miss; second list: only a miss
    got = ranking_per_list(np.array([3, 0, 1, 0]), np.array([0, 0, 0, 1]), 2, (2, 3))
    assert got["recall@3"].tolist() == [2 / 3, 0]
    assert got["precision@2"].tolist() == [1 / 2, 0]
    assert got["map@3"].tolist() == [(1 + 2 / 3) / 3, 0]
    assert got["mrr@3"].tolist() == [1, 0]
    assert got["ndcg@2"][0] == pytest.approx(1 / (1 + 1 / math.log2(3)))


def test_a_cutoff_beyond_every_catalogue_costs_no_memory():
    got = ranking_per_list(np.array([3, 1]), np.array([0, 0]), 1, (5, 2**31 - 1))
    assert got["ndcg@2147483647"] == got["ndcg@5"]


def test_no_lists_have_no_mean():
    assert all(math.isnan(value) for value in ranking_metrics(np.zeros(0), np.zeros(0), 0, (5,)).values())


@pytest.mark.parametrize(
    ("ranks", "lists", "num_lists", "cutoffs", "message"),
    [
        ([1], [0, 0], 1, (5,), "one length"),
        ([-1], [0], 1, (5,), "rank -1"),
        ([1], [0], 2, (5,), "relevant item"),
        ([1], [1], 1, (5,), "relevant item"),
        ([1], [0], 1, (0,), "at least 1"),
        ([1, 1], [0, 0], 1, (5,), "places"),
    ],
)
def test_refuses_nonsense(ranks, lists, num_lists, cutoffs, message):
    with pytest.raises(ValueError, match=message):
        ranking_per_list(np.array(ranks), np.array(lists), num_lists, cutoffs)


@given(st.lists(st.tuples(st.sampled_from([1.0, 2.5, 3.0, math.nan]), st.booleans(), st.integers(3, 6)), max_size=30))
def test_rated_items_equal_sorting_each_user(rows):
    predicted, relevant, user = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    got = rated_items_ranks(np.array(predicted, float), np.array(relevant, bool), np.array(user, int))
    ranks, dropped, perfect, users = [], 0, 0, []
    for u in sorted(set(user)):
        own = [(-p if not math.isnan(p) else math.inf, r) for p, r, v in rows if v == u]
        own.sort()  # best prediction first; of equal ones False, the irrelevant, first
        places = [place for place, (_, r) in enumerate(own, 1) if r]
        if not places:
            dropped += 1
            continue
        ranks += [(place, len(users)) for place in places]
        users.append(u)
        perfect += len(places) == len(own)
    assert sorted(zip(got.lists, got.ranks, strict=True)) == sorted((number, rank) for rank, number in ranks)
    assert (got.num_lists, got.num_dropped, got.num_all_relevant) == (len(users), dropped, perfect)
    assert got.users.tolist() == users
    ranking_per_list(got.ranks, got.lists, got.num_lists, (5,))  # is valid input


def test_ties_go_against_the_model():
    got = rated_items_ranks(np.array([4.0, 4.0, 4.0]), np.array([True, False, True]), np.array([7, 7, 7]))
    assert sorted(got.ranks) == [2, 3]


def test_rated_items_shapes_must_agree():
    with pytest.raises(ValueError, match="must agree"):
        rated_items_ranks(np.zeros(2), np.zeros(3, bool), np.zeros(2, int))

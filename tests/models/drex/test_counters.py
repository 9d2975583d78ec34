"""The counters before each interaction, compared with a replay in plain Python."""

import math

import numpy as np
import pytest

from drex_jax.models.drex import counters
from drex_jax.models.running_bias import RunningBias

BIAS = RunningBias(3.2, 2.0, 1.5)


def slow(events):
    """Return counts, gaps, biases [n][2], and the final (bias, log1p count) of users and items, with dictionaries."""
    count, last, total, rated = {}, {}, {}, {}

    def bias(who):
        shrinkage = BIAS.user_shrinkage if who[0] == "user" else BIAS.item_shrinkage
        return total[who] / (rated[who] + shrinkage) if rated.get(who) else 0.0

    rows = []
    for k in range(len(events)):
        sides = ("user", int(events.user[k])), ("item", int(events.item[k]))
        gaps = [max(events.timestamp[k] - last[who], 0) if who in last else math.nan for who in sides]
        biases = [bias(who) for who in sides]
        rows.append(([count.get(who, 0) for who in sides], gaps, biases))
        for who, other in zip(sides, reversed(biases), strict=True):
            count[who] = count.get(who, 0) + 1
            last[who] = events.timestamp[k]
            if not math.isnan(events.rating[k]):
                total[who] = total.get(who, 0.0) + float(events.rating[k]) - BIAS.mean - other
                rated[who] = rated.get(who, 0) + 1
    tables = [
        np.array([[bias((side, j)), math.log1p(count.get((side, j), 0))] for j in range(size)])
        for side, size in (("user", events.num_users), ("item", events.num_items))
    ]
    return [np.array(column) for column in zip(*rows, strict=True)], tables


@pytest.mark.parametrize("seed", range(5))
def test_advance_against_a_slow_twin(make_events, seed):
    events = make_events(40, seed)
    before, after = counters.advance(events, counters.History.start(events.num_users, events.num_items), BIAS)
    (counts, gaps, biases), tables = slow(events)
    np.testing.assert_array_equal(before.counts, counts)
    np.testing.assert_array_equal(before.gap, gaps.astype(np.float32))
    np.testing.assert_allclose(before.bias, biases, rtol=1e-5, atol=1e-6)
    for actual, expected in zip(counters.tables(after, BIAS), tables, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("border", [0, 1, 13, 40])
def test_in_two_parts_is_in_one(make_events, border):
    events = make_events(40)
    start = counters.History.start(events.num_users, events.num_items)
    whole, end = counters.advance(events, start, BIAS)
    first, middle = counters.advance(events[:border], start, BIAS)
    second, other_end = counters.advance(events[border:], middle, BIAS)
    for a, b, expected in zip(first, second, whole, strict=True):
        np.testing.assert_array_equal(np.concatenate([a, b]), expected)
    for a, b in zip(counters.tables(other_end, BIAS), counters.tables(end, BIAS), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(other_end.user_last, end.user_last)
    np.testing.assert_array_equal(other_end.item_count, end.item_count)
    assert not start.user_count.any()  # never changed in place
    assert np.isnan(start.item_last).all()


def test_time_that_runs_back_counts_as_no_time(make_events):
    """In a split that is not by time, later rows can have earlier times; the gap is then zero."""
    events = make_events(20)
    events.timestamp[:] = events.timestamp[::-1].copy()
    before, _ = counters.advance(events, counters.History.start(events.num_users, events.num_items), BIAS)
    assert np.nanmin(before.gap) == np.nanmax(before.gap) == 0


def test_tables_of_nobody_are_zero_without_shrinkage():
    user, item = counters.tables(counters.History.start(2, 3), RunningBias(3.0, 0.0, 0.0))
    assert user.tolist() == [[0, 0]] * 2
    assert item.tolist() == [[0, 0]] * 3

"""Windows of one shape, and negatives with their states."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drex_jax.models.drex import counters, window
from drex_jax.models.running_bias import RunningBias

BIAS = RunningBias(3.2, 2.0, 1.5)


def plan_of(events, count=1, width=3, past=None, **known):
    past = past or counters.History.start(events.num_users, events.num_items)
    before, after = counters.advance(events, past, BIAS)
    return window.plan(
        events, before, counters.tables(after, BIAS), count=count, packing=window.Packing(width=width), **known
    )


def first_appearance(ids):
    numbers = {}
    return np.array([numbers.setdefault(int(k), len(numbers)) for k in ids], np.int32)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(0, 5), st.integers(0, 4), st.integers(0, 99))
def test_negatives_against_a_slow_twin(stream, past, padding, seed):
    num_items, n = 12, len(stream)
    item = first_appearance(stream)
    known = np.maximum.accumulate(np.concatenate([[past], item[:-1] + 1]))
    padded = np.concatenate([item, np.full(padding, num_items)])
    chosen = window.negatives(padded, np.pad(known, (0, padding)), num_items, 6, np.random.default_rng(seed))
    size = n + padding
    assert not chosen.valid[n:].any()
    met = [{*range(past), *item[:k].tolist()} for k in range(n)]
    for k in range(n):
        for state, valid in zip(chosen.state[k], chosen.valid[k], strict=True):
            assert 0 <= state < size + num_items
            negative = padded[state] if state < size else state - size
            assert valid == (bool(met[k]) and negative != item[k])
            if valid:
                assert negative in met[k]
                later = [j for j in range(k, n) if item[j] == negative]
                assert state == (later[0] if later else size + negative)


def test_negatives_are_every_met_item_alike():
    item = np.array([0, 1, 2, 3, 0], np.int32)
    chosen = window.negatives(item, np.array([0, 1, 2, 3, 4]), 9, 4000, np.random.default_rng(0))
    moments, counts = np.unique(chosen.state[4][chosen.valid[4]], return_counts=True)
    assert moments.tolist() == [6, 7, 8]  # items 1, 2 and 3, which do not occur again: their state after the window
    assert (np.abs(counts - 1000) < 150).all()
    assert not chosen.valid[0].any()


@pytest.mark.parametrize(("count", "kept"), [(1, 1 << 30), (2, 1 << 30), (4, 1 << 30), (4, 0)])
def test_windows_hold_their_interactions_once(make_events, count, kept, monkeypatch):
    monkeypatch.setattr(window, "KEPT_BYTES", kept)
    events = make_events(31, reviewed=0.6)
    plan = plan_of(events, count)
    assert len(plan) == 31
    assert len(plan.windows) == count
    assert plan.windows[0].rating.flags.writeable == (kept == 0)  # constants stay on the devices
    assert (plan.windows[0] is plan.windows[0]) == (kept > 0)
    assert len(plan.windows[-1:]) == 1
    shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), w) for w in plan.windows]
    assert all(shape == shapes[0] for shape in shapes)
    size = len(plan.windows[0].valid)
    for w, a, b in zip(plan.windows, plan.begins[:-1], plan.begins[1:], strict=True):
        n = b - a
        assert w.valid.sum() == n
        assert w.valid[:n].all()
        lanes, slots = w.layout.lanes, w.layout.slots
        assert sorted(lanes[lanes < size].tolist()) == list(range(n))
        assert (lanes.reshape(-1)[slots[:n]] == np.arange(n)).all()
        table = np.concatenate([w.user_rows, w.item_rows + 1000])
        rows = w.layout.rows.reshape(-1, 2)[slots[:n]]
        np.testing.assert_array_equal(table[rows[:, 0]], events.user[a:b])
        np.testing.assert_array_equal(table[rows[:, 1]], events.item[a:b] + 1000)
        for step in w.layout.rows.reshape(-1, plan.schedules[0].width, 2):
            assert len(np.unique(step)) == step.size
            assert step.max() < len(table) + 2 * plan.schedules[0].width
        np.testing.assert_array_equal(w.rating[:n], events.rating[a:b])
        np.testing.assert_array_equal(w.vectors["picture"][:n], events.vectors["picture"][a:b])
        assert np.isnan(w.rating[n:]).all()
        assert (w.item[:n] == events.item[a:b]).all()
        assert (w.item[n:] == events.num_items).all()
        for ids, row in zip(w.text.ids, w.text.row, strict=True):
            for tokens, at in zip(ids.reshape(-1, ids.shape[-1]), row.reshape(-1), strict=True):
                if at < n:
                    own = events.tokens.ids[events.tokens.offsets[a + at] : events.tokens.offsets[a + at + 1]]
                    assert tokens[tokens > 0].tolist() == own.tolist()


def test_fresh_and_known_at_the_borders_of_windows_and_segments(make_events):
    events = make_events(40, users=12, items=12)
    border = 17
    first = events[:border]
    seen_users, seen_items = int(first.user.max()) + 1, int(first.item.max()) + 1
    plan = plan_of(events[border:], 3, known_users=seen_users, known_items=seen_items)
    fresh = []
    for w, a, b in zip(plan.windows, plan.begins[:-1] + border, plan.begins[1:] + border, strict=True):
        for rows, flags, ids, none in (
            (w.user_rows, w.user_fresh, events.user, events.num_users),
            (w.item_rows, w.item_fresh, events.item, events.num_items),
        ):
            touched = set(ids[a:b].tolist())
            assert rows[rows < none].tolist() == sorted(touched)
            assert not flags[rows == none].any()
            assert set(rows[flags].tolist()) == touched - set(ids[:a].tolist())
            fresh += rows[flags].tolist()
        for k in range(a, b):
            assert w.known[k - a] == len(set(events.item[:k].tolist()))
    assert fresh  # otherwise the test would check nothing


@pytest.mark.parametrize("count", [1, 3])
def test_auxiliaries_after_each_window(make_events, count):
    """The running bias and log1p count of a window's users and items equal the counters right after it."""
    events = make_events(31)
    plan = plan_of(events, count)
    past = counters.History.start(events.num_users, events.num_items)
    for w, a, b in zip(plan.windows, plan.begins[:-1], plan.begins[1:], strict=True):
        _, past = counters.advance(events[int(a) : int(b)], past, BIAS)
        user, item = counters.tables(past, BIAS)
        used = w.user_rows < events.num_users
        np.testing.assert_allclose(w.user_auxiliary[used], user[w.user_rows[used]], rtol=1e-6, atol=1e-6)
        used = w.item_rows < events.num_items
        np.testing.assert_allclose(w.item_auxiliary[used], item[w.item_rows[used]], rtol=1e-6, atol=1e-6)


def test_more_windows_than_interactions_and_none_at_all():
    assert window.window_begins(3, 10).tolist() == [0, 1, 2, 3]
    assert window.window_begins(0, 4).tolist() == [0, 0]
    assert window.window_begins(10, 3).tolist() == [0, 3, 7, 10]

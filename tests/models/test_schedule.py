"""Schedules: valid on any stream, and as short as a lower bound says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drex_jax.models.drex import schedule

HUB = st.one_of(st.just(0), st.integers(0, 9))
STREAMS = st.lists(st.tuples(HUB, HUB), max_size=60)


def columns(stream):
    pairs = np.array(stream, np.int32).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def slow_depth(user, item):
    level = []
    for k in range(len(user)):
        before = [level[j] for j in range(k) if user[j] == user[k] or item[j] == item[k]]
        level.append(1 + max(before, default=0))
    return max(level, default=0)


def assert_valid(packed, user, item):
    n = len(user)
    assert packed.step.shape == packed.lane.shape == (n,)
    assert ((packed.lane >= 0) & (packed.lane < packed.width)).all()
    assert len(set(zip(packed.step.tolist(), packed.lane.tolist(), strict=True))) == n
    assert packed.steps == (packed.step.max() + 1 if n else 0)
    for k in range(n):
        for j in range(k):
            if user[j] == user[k] or item[j] == item[k]:
                assert packed.step[j] < packed.step[k], (j, k)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(STREAMS, st.sampled_from([0, 1, 2, 3, 5, 8, 100]))
def test_valid_and_between_its_bounds(stream, width):
    user, item = columns(stream)
    packed = schedule.schedule(user, item, width)
    assert_valid(packed, user, item)
    assert packed.width == width or not width
    assert packed.depth == slow_depth(user, item)
    assert max(packed.depth, -(-len(user) // packed.width)) <= packed.bound <= packed.steps <= packed.bound + 1
    events = packed.events()
    assert events.shape == (packed.steps, packed.width)
    assert sorted(events[events < len(user)]) == list(range(len(user)))
    assert (events.reshape(-1)[packed.slots()] == np.arange(len(user))).all()


def test_near_the_bound_on_random_streams():
    excess = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(50, 400))
        user = (rng.zipf(1.5, n) % rng.integers(5, 60)).astype(np.int32)
        item = rng.integers(0, rng.integers(3, 60), n).astype(np.int32)
        packed = schedule.schedule(user, item, int(rng.integers(1, 20)))
        assert packed.steps >= packed.bound
        excess.append(packed.steps / packed.bound - 1)
    assert max(excess) <= 0.05  # worst of 2,000 such streams: 1.034 times the bound, at width 2
    assert np.mean(np.array(excess) == 0) >= 0.99


@pytest.mark.parametrize("width", [1, 2, 7, 64])
@pytest.mark.parametrize(
    ("stream", "depth"),
    [
        ([], 0),
        ([(0, 0)], 1),
        ([(0, i) for i in range(9)], 9),  # one user: a chain
        ([(u, 0) for u in range(9)], 9),  # one item: a chain
        ([(3, 4)] * 6, 6),  # one pair, again and again
        ([(k, k) for k in range(9)], 1),  # nobody shares anything
    ],
)
def test_edges(stream, depth, width):
    user, item = columns(stream)
    packed = schedule.schedule(user, item, width)
    assert_valid(packed, user, item)
    assert packed.depth == depth
    assert packed.steps == packed.bound == max(depth, -(-len(stream) // width))


def test_a_chain_and_then_a_fan_out():
    """The chain comes first: level by level would be as short, but the items of the chain's last users wait for it."""
    chain = [(0, i) for i in range(10)]
    fan = [(1 + u, 9) for u in range(3)] + [(10 + u, 20 + u) for u in range(26)]
    user, item = columns(fan[3:] + chain + fan[:3])
    packed = schedule.schedule(user, item, 3)
    assert_valid(packed, user, item)
    assert packed.depth == packed.steps == packed.bound == 13
    assert packed.fill == 39 / 39


def test_the_bound_beats_its_simplest_cases():
    """A fan-out after a chain: neither the depth nor N / width, but the sum of parts."""
    user, item = columns([(0, i) for i in range(10)] + [(0, 99)] + [(u, 99 + u) for u in range(1, 9)])
    level = np.r_[np.arange(11), np.full(8, 10)]
    assert schedule.lower_bound(level, 2) == 10 + 5  # nine at level 10, two a step
    assert schedule.lower_bound(np.zeros(0, np.int32), 2) == 0
    assert schedule.schedule(user, item, 2).bound >= 11


def test_the_chosen_width_is_the_cheapest_power_of_two():
    for n, depth in ((1, 1), (10_261, 320), (100_836, 57_078), (10_000_000, 900)):
        widths = [2**p for p in range(13)]
        costs = [max(depth, -(-n // width)) * (24 + width) for width in widths]
        assert schedule.choose_width(n, depth) == widths[int(np.argmin(costs))]
    assert schedule.choose_width(100_836, 57_078) <= 4
    assert schedule.choose_width(10_000_000, 900) == 4096


def test_refuses_nonsense():
    with pytest.raises(ValueError, match="-1"):
        schedule.schedule(np.zeros(1, np.int32), np.zeros(1, np.int32), -1)
    with pytest.raises(ValueError, match="2 and 1"):
        schedule.schedule(np.zeros(2, np.int32), np.zeros(1, np.int32), 1)

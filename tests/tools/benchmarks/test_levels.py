"""Compare levels and their t-batches with an implementation that uses dictionaries."""

import numpy as np
import pytest

from drex_jax.models.drex import schedule
from tools.benchmarks import levels, streams


def slow_levels(user: np.ndarray, item: np.ndarray) -> list[int]:
    reached: dict[tuple[str, int], int] = {}
    found = []
    for pair in zip((("u", u) for u in user), (("i", i) for i in item), strict=True):
        level = max(reached.get(key, 0) for key in pair)
        reached |= dict.fromkeys(pair, level + 1)
        found.append(level)
    return found


@pytest.mark.parametrize("interactions", [1, 2, 200])
def test_levels_and_depth_equal_the_slow_twin(interactions: int) -> None:
    stream = streams.synthetic(interactions, users=20, items=9)
    expected = slow_levels(stream.user, stream.item)
    np.testing.assert_array_equal(levels.levels(stream.user, stream.item), expected)
    assert levels.depth(stream.user, stream.item) == max(expected) + 1
    assert levels.depth(stream.user, stream.item) == schedule.build_schedule(stream.user, stream.item, 3).depth


def test_no_interaction_has_no_level() -> None:
    nothing = np.zeros(0, np.int32)
    assert (len(levels.levels(nothing, nothing)), levels.depth(nothing, nothing)) == (0, 0)


@pytest.mark.parametrize("width", [1, 3, 500])
def test_t_batches_keep_levels_apart(width: int) -> None:
    stream = streams.synthetic(200, users=20, items=9)
    level = levels.levels(stream.user, stream.item)
    packed = levels.schedule(stream.user, stream.item, width)
    members = [np.flatnonzero(packed.step == step) for step in range(packed.steps)]
    assert all(len(set(level[members[step]])) == 1 for step in range(packed.steps))
    assert [level[step[0]] for step in members] == sorted(level[step[0]] for step in members)
    assert packed.steps == sum(-(-np.sum(level == value) // width) for value in range(packed.depth))
    assert all(sorted(packed.lane[step]) == list(range(len(step))) and len(step) <= width for step in members)
    again = levels.schedule(stream.user, stream.item, width)
    np.testing.assert_array_equal(packed.step, again.step)


def test_a_window_packed_by_levels_has_their_schedule() -> None:
    stream = streams.synthetic(50)
    arrays = {"user": stream.user, "item": stream.item}
    found = schedule.Schedule.from_arrays(levels.cache("schedule", arrays, {"width": 4}, 1, dict))
    expected = levels.schedule(stream.user, stream.item, 4)
    np.testing.assert_array_equal(found.slots(), expected.slots())
    assert (found.steps, found.depth) == (expected.steps, expected.depth)
    assert levels.cache("other", arrays, {}, 1, lambda: arrays) == arrays

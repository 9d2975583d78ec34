import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from drex_jax.common.errors import UserError
from drex_jax.data.assemble import assemble_interactions
from drex_jax.data.readers.chunk import Chunk, Row
from drex_jax.data.split import KINDS, split_interactions
from drex_jax.evaluation import leaks


def table(users, times, given=None):
    parts = [0] * len(users) if given is None else given
    rows = [
        Row(b"%d" % user, b"%d" % row, float(time), 1.0, split=part)
        for row, (user, time, part) in enumerate(zip(users, times, parts, strict=True))
    ]
    return assemble_interactions([Chunk.of(rows, has_split=given is not None)], "n", (0, 5)).interactions


def is_partition(parts, n):
    rows = np.concatenate([parts.train, parts.validation, parts.test])
    ascending = all((np.diff(part) > 0).all() for part in (parts.train, parts.validation, parts.test))
    types = {part.dtype for part in (parts.train, parts.validation, parts.test)}
    return sorted(rows.tolist()) == list(range(n)) and ascending and types == {np.dtype(np.int64)}


EVENTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), min_size=1, max_size=60)


@given(EVENTS, st.sampled_from([0.1, 0.25, 0.4]), st.sampled_from([0.1, 0.25, 0.4]))
def test_global_time_never_leaks(events, validation, test):
    data = table(*zip(*events, strict=True))
    try:
        parts = split_interactions(data, "global_time", validation, test)
    except UserError:
        return
    time = data.timestamp
    assert is_partition(parts, len(data))
    assert time[parts.train].max() < time[parts.validation].min() == parts.boundaries["validation"]
    assert time[parts.validation].max() < time[parts.test].min() == parts.boundaries["test"]
    assert leaks.future("global_time", time, (len(parts.train), len(parts.validation), len(parts.test))) == []
    json.dumps(parts.boundaries)
    # Train is never smaller than requested, and larger only by the ties at its end.
    target = round(len(data) * (1 - validation - test))
    assert len(parts.train) >= target
    assert target == 0 or (time[parts.train][target - 1 :] == time[target - 1]).all()


def test_global_time_is_80_10_10_without_ties():
    assert split_interactions(table([0] * 1000, range(1000))).sizes == {"train": 800, "validation": 100, "test": 100}


@pytest.mark.parametrize("times", [[5] * 100, [1] * 50 + [2] * 50, [0], list(range(3))])
def test_an_empty_part_says_why(times):
    with pytest.raises(UserError, match=f"{len(times)} interactions at {len(set(times))} different moments"):
        split_interactions(table([0] * len(times), times))


@given(EVENTS)
def test_leave_last_out_against_a_slow_version(events):
    data = table(*zip(*events, strict=True))
    train, validation, test = [], [], []
    for user in range(data.num_users):
        rows = [row for row in range(len(data)) if data.user[row] == user]
        if len(rows) >= 3:
            validation.append(rows[-2])
            test.append(rows[-1])
            rows = rows[:-2]
        train += rows
    assume(test)
    parts = split_interactions(data, "leave_last_out")
    assert (parts.train.tolist(), parts.validation.tolist()) == (sorted(train), sorted(validation))
    assert parts.test.tolist() == sorted(test)


def test_random_depends_on_the_seed():
    data = table([0] * 200, range(200))
    one, same, other = (split_interactions(data, "random", seed=seed) for seed in (1, 1, 2))
    assert is_partition(one, 200)
    assert one.sizes == {"train": 160, "validation": 20, "test": 20}
    assert one.test.tolist() == same.test.tolist() != other.test.tolist()


def test_given_is_the_split_of_the_file():
    clean = split_interactions(table([0] * 4, range(4), [0, 0, 1, 2]), "given")
    assert (clean.train.tolist(), clean.validation.tolist(), clean.test.tolist()) == ([0, 1], [2], [3])
    with pytest.raises(UserError, match="no split column"):
        split_interactions(table([0], [0]), "given")
    with pytest.raises(UserError, match=r"the test part of 2 interactions would be empty; data\.columns\.split"):
        split_interactions(table([0, 1], [0, 1], [0, 1]), "given")


def test_bad_options():
    data = table([0] * 10, range(10))
    for shares in ((0, 0.1), (0.1, 0), (0.5, 0.5), (-0.1, 0.1), (float("nan"), 0.1)):
        with pytest.raises(UserError, match=r"split.validation="):
            split_interactions(data, "global_time", *shares)
    with pytest.raises(UserError, match=" ".join(KINDS)):
        split_interactions(data, "by_moon")

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drex_jax.data.assemble import assemble_interactions, in_core
from drex_jax.data.readers.chunk import Chunk, Row
from drex_jax.data.strings import Strings

NAN = float("nan")
ROW = st.tuples(
    st.sampled_from(["a", "b", "ab", "é", "z"]),
    st.sampled_from(["x", "y", "xy"]),
    st.sampled_from([0.0, -0.0, -5.0, 1.5, 1e9]),
    st.sampled_from([NAN, 0.0, -0.0, 1.0, 5.0]),
    st.sampled_from(["", "good", "bad\nbad", "é"]),
    st.sampled_from([None, (1.0, -0.0), (1.0, 0.0), (0.5, 2.0)]),
    st.sampled_from([0, 1, 2]),
)
ROWS = st.lists(ROW, min_size=1, max_size=25)


def chunk(rows, vectors=True, split=True):
    checked = []
    for user, item, time, rating, text, vector, part in rows:
        array = None if vector is None else np.array(vector, np.float32)
        present = (array,) if vectors else ()
        checked.append(Row(user.encode(), item.encode(), time, rating, text.encode(), present, part))
    return Chunk.of(checked, ("v",) if vectors else (), split)


def plain(interactions):
    """Return the table as Python rows."""
    vectors = interactions.vectors.get("v")
    return [
        (
            interactions.user_ids[interactions.user[k]],
            interactions.item_ids[interactions.item[k]],
            float(interactions.timestamp[k]),
            str(interactions.rating[k]),
            interactions.text[k],
            None if vectors is None else str(vectors[k].tolist()),
            int(interactions.given_split[k]),
        )
        for k in range(len(interactions))
    ]


@given(ROWS, st.randoms(use_true_random=False), st.integers(1, 9))
def test_neither_row_order_nor_chunks_change_a_byte(rows, random, size):
    shuffled = rows[:]
    random.shuffle(shuffled)
    once = assemble_interactions([chunk(rows)], "n", (0, 5))
    again = assemble_interactions([chunk(shuffled[k : k + size]) for k in range(0, len(rows), size)], "n", (0, 5))
    assert once.interactions.sha256() == again.interactions.sha256()
    assert dataclasses.replace(once, interactions=None) == dataclasses.replace(again, interactions=None)
    once.interactions.validate()


@given(ROWS)
def test_it_holds_every_distinct_row_once_in_order(rows):
    assembled = assemble_interactions([chunk(rows)], "n", (0, 5))
    rows_read = plain(assembled.interactions)
    # The slow version: a set of rows, where -0 is 0.
    no_vectors = all(row[5] is None for row in rows)
    expected = {
        (
            user,
            item,
            time + 0.0,
            str(np.float32(rating + 0.0)),
            text,
            None if no_vectors else str([NAN, NAN] if vector is None else [value + 0.0 for value in vector]),
            part,
        )
        for user, item, time, rating, text, vector, part in rows
    }
    assert set(rows_read) == expected
    assert len(rows_read) == len(expected) == len(rows) - assembled.duplicates
    keys = [(time, user.encode(), item.encode()) for user, item, time, *_ in rows_read]
    assert keys == sorted(keys)
    assert list(assembled.interactions.user_ids) == list(dict.fromkeys(row[0] for row in rows_read))
    assert list(assembled.interactions.item_ids) == list(dict.fromkeys(row[1] for row in rows_read))


def test_almost_equal_rows_are_not_duplicates():
    rows = [("u", "i", 1.0, 4.0, "t", None, 0)]
    rows += [
        ("u", "i", 1.0, 5.0, "t", None, 0),
        ("u", "i", 1.0, 4.0, "s", None, 0),
        ("u", "i", 1.0, 4.0, "t", (0, 0), 0),
    ]
    rows += [("u", "i", 1.0, 4.0, "t", None, 1), ("u", "i", 1.0, NAN, "t", None, 0)]
    assert assemble_interactions([chunk(rows * 3)], "n", (0, 5)).duplicates == 2 * len(rows)


def test_a_chunk_without_vectors_beside_one_with():
    one, two = ("u", "i", 1.0, 4.0, "t", None, 0), ("u", "i", 2.0, 4.0, "t", (1.0, 2.0), 0)
    interactions = assemble_interactions([chunk([one]), chunk([two])], "n", (0, 5)).interactions
    np.testing.assert_array_equal(interactions.vectors["v"], [[NAN, NAN], [1, 2]])


def test_no_rows():
    for chunks in ([], [chunk([])]):
        interactions = assemble_interactions(chunks, "n", (0, 5)).interactions
        assert (len(interactions), interactions.num_users, interactions.num_items) == (0, 0, 0)
        interactions.validate()


def slow_core(pairs, k):
    """Remove one interaction at a time until all have k."""
    left = list(enumerate(pairs))
    while True:
        users, items = [pair[0] for _, pair in left], [pair[1] for _, pair in left]
        bad = [entry for entry in left if users.count(entry[1][0]) < k or items.count(entry[1][1]) < k]
        if not bad:
            return [number for number, _ in left]
        left.remove(bad[0])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), max_size=40), st.integers(0, 4))
def test_k_core_against_a_slow_version(pairs, k):
    array = np.array(pairs, np.int64).reshape(-1, 2)
    assert np.flatnonzero(in_core(array[:, 0], array[:, 1], k)).tolist() == slow_core(pairs, k)


def test_a_chain_is_taken_apart_in_the_time_of_its_length(monkeypatch):
    """Every round removes only the two ends; visiting all the rest every time would take quadratic time."""
    visited, n = [], 600
    unique = np.unique
    monkeypatch.setattr(np, "unique", lambda rows, **options: visited.append(len(rows)) or unique(rows, **options))
    numbers = np.arange(n)
    assert not in_core((numbers + 1) // 2, numbers // 2, 2).any()
    ring = in_core((numbers + 1) // 2 % (n // 2), numbers // 2, 2)
    assert ring.all()
    assert sum(visited) < 6 * n


@given(ROWS, st.integers(1, 20), st.integers(0, 3))
def test_the_earliest_are_taken_before_the_core(rows, most, k):
    everything = plain(assemble_interactions([chunk(rows)], "n", (0, 5)).interactions)
    assembled = assemble_interactions([chunk(rows)], "n", (0, 5), most, k)
    rest = everything[:most]
    core = slow_core([row[:2] for row in rest], k)
    remaining = [row[:5] + row[6:] for row in plain(assembled.interactions)]
    assert remaining == [rest[number][:5] + rest[number][6:] for number in core]
    assert (assembled.cut, assembled.below_core) == (len(everything) - len(rest), len(rest) - len(core))
    assembled.interactions.validate()


@given(st.lists(st.text(max_size=5), min_size=1), st.data())
def test_strings_take_is_that_of_lists(values, data):
    rows = data.draw(st.lists(st.integers(0, len(values) - 1)))
    assert list(Strings.of(values).take(np.array(rows, np.int64))) == [values[row] for row in rows]
    parts = [Strings.of(values), Strings.of([]), Strings.of(values[::-1])]
    assert list(Strings.concatenate(parts)) == values + values[::-1]


def test_a_split_in_some_chunks_only_is_a_defect():
    row = ("u", "i", 1.0, 4.0, "t", None, 0)
    with pytest.raises(ValueError, match="split"):
        assemble_interactions([chunk([row]), chunk([row], split=False)], "n", (0, 5))


def test_many_rows_cross_the_blocks_in_which_strings_are_copied():
    texts = [str(number) * (number % 7) for number in range(40_000)]
    rows = np.arange(40_000)[::-1]
    assert list(Strings.of(texts).take(rows)) == texts[::-1]
    assert isinstance(chunk([("u", "i", 1.0, 4.0, "t", None, 0)]), Chunk)

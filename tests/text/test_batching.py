"""Length buckets: every text is in exactly one chunk, and can be read back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drex_jax.text import batching


def make_texts(lengths, seed=0):
    lengths = np.asarray(lengths, np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.random.default_rng(seed).integers(1, 1000, offsets[-1]).astype(np.int32)
    return ids, offsets


def test_bucket_lengths_end_at_the_maximum():
    assert batching.bucket_lengths(128) == (16, 32, 64, 96, 128)
    assert batching.bucket_lengths(100) == (16, 32, 64, 96, 100)
    assert batching.bucket_lengths(300) == (16, 32, 64, 96, 128, 192, 256, 300)
    assert batching.bucket_lengths(5) == (5,)
    assert batching.bucket_lengths(16) == (16,)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        batching.bucket_lengths(0)


@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 200), st.randoms(use_true_random=False))
def test_every_text_is_in_exactly_one_chunk_whole(lengths, budget, random):
    ids, offsets = make_texts([*lengths, 7])  # one text more than the window uses
    rows = np.array(random.sample(range(len(lengths)), len(lengths)), np.int64)
    counts = np.diff(offsets)[rows]
    shapes = batching.fit([counts], batching.bucket_lengths(40), budget)
    batch = batching.plan(ids, offsets, rows, shapes)

    found = {}
    for shape, chunk_ids, chunk_row in zip(shapes, batch.ids, batch.row, strict=True):
        assert chunk_ids.shape == tuple(shape)
        assert chunk_ids.dtype == chunk_row.dtype == np.int32
        assert shape.rows * shape.length <= max(budget, shape.length)
        for tokens, row in zip(chunk_ids.reshape(-1, shape.length), chunk_row.reshape(-1), strict=True):
            if row == len(rows):
                assert not tokens.any()
            else:
                assert row not in found
                found[row] = tokens[tokens > 0]
    assert sorted(found) == np.flatnonzero(counts).tolist()
    for row, tokens in found.items():
        np.testing.assert_array_equal(tokens, ids[offsets[rows[row]] : offsets[rows[row] + 1]])


def test_padding_is_less_than_a_row_a_chunk_beyond_the_bucket_lengths():
    lengths = np.random.default_rng(0).integers(1, 129, 5000)
    shapes = batching.fit([lengths], batching.bucket_lengths(128), 4096)
    rows = sum(shape.chunks * shape.rows for shape in shapes)
    assert 5000 <= rows < 5000 + sum(shape.chunks for shape in shapes)


def test_one_shape_holds_several_windows_and_refuses_a_larger_one():
    ids, offsets = make_texts([3] * 10 + [20] * 10)
    windows = [np.arange(0, 12), np.arange(8, 20)]
    shapes = batching.fit([np.diff(offsets)[rows] for rows in windows], (4, 32), 64)
    assert [shape.chunks * shape.rows for shape in shapes] == [10, 10]
    batches = [batching.plan(ids, offsets, rows, shapes) for rows in windows]
    assert [a.shape for a in batches[0].ids] == [a.shape for a in batches[1].ids]
    with pytest.raises(ValueError, match="20 texts do not fit 1 x 10 of length 4"):
        batching.plan(ids, offsets, np.tile(np.arange(10), 2), shapes)
    with pytest.raises(ValueError, match="a text of 20 tokens does not fit the buckets"):
        batching.plan(ids, offsets, windows[1], shapes[:1])


def test_fit_names_what_is_wrong():
    with pytest.raises(ValueError, match="a text of 9 tokens is longer than the last bucket, 8"):
        batching.fit([np.array([1, 9])], (4, 8))
    with pytest.raises(ValueError, match="must increase"):
        batching.fit([np.array([1])], (8, 4))


def test_no_text_at_all_gives_an_empty_batch():
    ids, offsets = make_texts([0, 0])
    shapes = batching.fit([np.zeros(2, np.int64)], (16,))
    assert shapes == ()
    assert batching.plan(ids, offsets, np.arange(2), shapes) == batching.TextBatch((), ())


def test_unplan_is_the_inverse_of_plan():
    ids, offsets = make_texts([5, 0, 17, 1, 16, 33, 2])
    rows = np.array([6, 2, 1, 0, 5])
    shapes = batching.fit([np.diff(offsets)[rows]], (4, 16, 40), 50)
    batch = batching.plan(ids, offsets, rows, shapes)
    flat = batching.unplan([part.astype(np.float32) for part in batch.ids], batch, offsets, rows, len(ids))
    expected = np.zeros(len(ids), np.float32)
    for row in rows:
        expected[offsets[row] : offsets[row + 1]] = ids[offsets[row] : offsets[row + 1]]
    np.testing.assert_array_equal(flat, expected)

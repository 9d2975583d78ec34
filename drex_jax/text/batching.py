"""Texts in length buckets: a few arrays of static shape with little padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BUDGET = 4096  # tokens of a chunk, which the encoder processes at once; they fit a core's cache


class BucketShape(NamedTuple):
    """The shape of one length bucket: `chunks` chunks of [rows, length] tokens."""

    chunks: int
    rows: int
    length: int


class TextBatch(NamedTuple):
    """The texts of a window of n rows by length bucket, as a pytree of arrays.

    Attributes:
      ids: for each bucket, int32 [chunks, rows, length], token ids; 0 after the end of a text.
      row: for each bucket, int32 [chunks, rows], the row of the window that a text belongs to; n for padding.
      features: for each bucket, float16 [chunks, rows, length, D], token features, 0 after the end of a text; None if
        there are no token features.
    """

    ids: tuple[np.ndarray, ...]
    row: tuple[np.ndarray, ...]
    features: tuple[np.ndarray, ...] | None = None


def bucket_lengths(max_tokens: int) -> tuple[int, ...]:
    """Return the padded lengths for texts of at most `max_tokens` tokens: 16, 32, 64, 96, 128, ... and the maximum.

    Raises:
      ValueError: `max_tokens` is not positive.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, got {max_tokens}")
    lengths, length = [16, 32], 64
    while length < max_tokens:
        lengths += [length, length + length // 2]
        length *= 2
    return (*(length for length in lengths if length < max_tokens), max_tokens)


def fit(
    windows: Sequence[np.ndarray], lengths: Sequence[int], budget: int = BUDGET, devices: int = 1
) -> tuple[BucketShape, ...]:
    """Return the static shapes that fit every one of several windows, so that they share one compiled program.

    Args:
      windows: for each window the token counts of its rows, int [n]; 0 is a missing text.
      lengths: the padded lengths, increasing (`bucket_lengths`).
      budget: tokens of a chunk, with padding; a chunk has at least one row.
      devices: number of devices; it divides the chunks of each bucket.

    Returns:
      The shape of each bucket, without buckets that are empty in all windows.

    Raises:
      ValueError: `lengths` does not increase, or a text is longer than the last bucket.
    """
    if list(lengths) != sorted(set(lengths)) or not lengths:
        raise ValueError(f"bucket lengths must increase, got {tuple(lengths)}")
    needed = np.zeros(len(lengths), np.int64)
    for window in windows:
        if len(window) and window.max() > lengths[-1]:
            raise ValueError(f"a text of {window.max()} tokens is longer than the last bucket, {lengths[-1]}")
        bucket = np.searchsorted(lengths, window[window > 0])
        needed = np.maximum(needed, np.bincount(bucket, minlength=len(lengths)))
    shapes = []
    for length, count in zip(lengths, needed.tolist(), strict=True):
        if count:
            chunks = -(-count // max(1, budget // length))
            chunks = -(-chunks // devices) * devices
            shapes.append(BucketShape(chunks, -(-count // chunks), length))  # equal chunks need the least padding
    return tuple(shapes)


def plan(
    ids: np.ndarray,
    offsets: np.ndarray,
    rows: np.ndarray,
    shapes: Sequence[BucketShape],
    features: np.ndarray | None = None,
) -> TextBatch:
    """Put the texts of a window into length buckets.

    Args:
      ids: int32 [total], the tokens of all texts, one text after the other.
      offsets: int64 [texts + 1]; text i is `ids[offsets[i]:offsets[i + 1]]`.
      rows: int [n], the text of each row of the window; empty texts are in no bucket.
      shapes: the bucket shapes from `fit`.
      features: float16 [total, D], features of each token, or None.

    Raises:
      ValueError: the window does not fit the shapes.
    """
    rows = np.asarray(rows, np.int64)
    counts = offsets[rows + 1] - offsets[rows]
    lengths = [shape.length for shape in shapes]
    bucket = np.searchsorted(lengths, counts)
    if np.any(bucket[counts > 0] == len(lengths)):
        raise ValueError(f"a text of {counts.max()} tokens does not fit the buckets {lengths}")
    all_ids, all_rows, all_features = [], [], []
    for number, shape in enumerate(shapes):
        members = np.flatnonzero((bucket == number) & (counts > 0))
        if len(members) > shape.chunks * shape.rows:
            raise ValueError(f"{len(members)} texts do not fit {shape.chunks} x {shape.rows} of length {shape.length}")
        padded = np.zeros((shape.chunks * shape.rows, shape.length), np.int32)
        within = np.arange(shape.length) < counts[members, None]
        source = offsets[rows[members], None] + np.arange(shape.length)
        padded[: len(members)][within] = ids[source[within]]
        row = np.full(shape.chunks * shape.rows, len(rows), np.int32)
        row[: len(members)] = members
        all_ids.append(padded.reshape(shape))
        all_rows.append(row.reshape(shape.chunks, shape.rows))
        if features is not None:
            values = np.zeros((*padded.shape, features.shape[1]), features.dtype)
            values[: len(members)][within] = features[source[within]]
            all_features.append(values.reshape(*shape, -1))
    return TextBatch(tuple(all_ids), tuple(all_rows), None if features is None else tuple(all_features))


def unplan(
    values: Sequence[np.ndarray], batch: TextBatch, offsets: np.ndarray, rows: np.ndarray, total: int
) -> np.ndarray:
    """Return values of tokens from their buckets to the order of the tokens: the inverse of `plan`.

    Args:
      values: for each bucket, [chunks, rows, length], such as attention weights.
      batch: the result of `plan`.
      offsets: the same as for `plan`.
      rows: the same as for `plan`.
      total: number of tokens of all texts.

    Returns:
      float32 [total]; zeros for texts that are not in the window.
    """
    flat = np.zeros(total, np.float32)
    for value, ids, row in zip(values, batch.ids, batch.row, strict=True):
        used = row < len(rows)
        text = np.asarray(rows, np.int64)[row[used]]
        token = offsets[text][:, None] + np.arange(ids.shape[-1])
        within = token < offsets[text + 1][:, None]
        flat[token[within]] = np.asarray(value)[used][within]
    return flat

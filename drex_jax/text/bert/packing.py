"""Packing: several texts in one row, so that there is little padding and few shapes are compiled.

`network.Bert` masks attention between the texts of a row.

Letters: n texts, R rows, T tokens of a row, S texts that fit into a row.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from drex_jax.common.padding import power_of_two
from drex_jax.data.tokens import Tokens

ROW = 128  # tokens of a row if no text is longer: attention is a tenth of the work then
LEAST = 8  # tokens that a text takes in a row at least; this bounds S


class Batch(NamedTuple):
    """A batch of texts, packed into rows.

    Attributes:
      ids: int32 [R, T], token ids; 0 for padding.
      segments: int32 [R, T], the number of the text of each token within its row, from 1; 0 for padding.
      source: int64 [R, T], the index of each token among all tokens; -1 for padding.
      texts: int64 [m], the texts of the batch.
      places: int64 [m], the index of each text in the flattened [R S] results.
    """

    ids: np.ndarray
    segments: np.ndarray
    source: np.ndarray
    texts: np.ndarray
    places: np.ndarray


def room(length: int) -> int:
    """Return S, the number of texts that fit into a row of `length` tokens."""
    return length // LEAST


def batches(pieces: Tokens, devices: int, budget: int) -> Iterator[Batch]:
    """Pack texts into batches, the longest first; each row is filled with the longest texts that fit.

    T is a power of two: `ROW`, or less if all texts together need less, or as much as the longest text of the batch
    needs. R is the number of rows that the budget allows; in the last batch, the smallest sufficient power of two.

    Args:
      pieces: tokens of n texts.
      devices: number of devices; it divides R.
      budget: tokens of a batch for each device, with padding; a device has at least one row.
    """
    lengths = pieces.lengths.tolist()
    left = _Left(lengths)
    least = min(ROW, power_of_two(sum(max(LEAST, length) for length in lengths)))
    while left.longest:
        width = max(least, power_of_two(left.longest))
        share = max(1, budget // width)  # rows of a device
        rows: list[list[int]] = []
        while left.longest and len(rows) < share * devices:
            rows.append(left.fill(width))
        share = min(share, power_of_two(-(-len(rows) // devices)))
        yield _batch(pieces, rows, (share * devices, width))


class _Left:
    """The texts that are not in a row yet, by length."""

    def __init__(self, lengths: list[int]):
        self._texts: dict[int, list[int]] = {}
        for text, length in reversed(list(enumerate(lengths))):
            self._texts.setdefault(max(LEAST, length), []).append(text)
        self._lengths = sorted(self._texts)

    @property
    def longest(self) -> int:
        """The number of tokens of the longest remaining text; 0 if no text is left."""
        return self._lengths[-1] if self._lengths else 0

    def fill(self, space: int) -> list[int]:
        """Take the texts of a row of `space` tokens: always the longest text that fits."""
        row = []
        while place := bisect.bisect_right(self._lengths, space):
            length = self._lengths[place - 1]
            row.append(self._texts[length].pop())
            space -= length
            if not self._texts[length]:
                del self._lengths[place - 1]
        return row


def _batch(pieces: Tokens, rows: list[list[int]], shape: tuple[int, int]) -> Batch:
    segments, source = np.zeros(shape, np.int32), np.full(shape, -1)
    for row_segments, row_source, row in zip(segments, source, rows, strict=False):
        begin = 0
        for number, one in enumerate(row, 1):
            end = begin + pieces.offsets[one + 1] - pieces.offsets[one]
            row_segments[begin:end] = number
            row_source[begin:end] = np.arange(pieces.offsets[one], pieces.offsets[one + 1])
            begin = end
    ids = np.where(source < 0, 0, pieces.ids[source]).astype(np.int32)
    places = [row * room(shape[1]) + place for row, texts in enumerate(rows) for place in range(len(texts))]
    return Batch(ids, segments, source, np.concatenate(rows).astype(np.int64), np.array(places))

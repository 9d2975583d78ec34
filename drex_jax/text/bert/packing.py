"""Texts packed end to end into rows of a few lengths, so that few tokens are padding and few shapes are compiled.

A text sees itself alone, whatever else its row holds: `network.Bert` is told which text each token is of. Letters: n
texts, R rows, T tokens of a row, S texts that a row has room for.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from drex_jax.common.padding import power_of_two
from drex_jax.data.tokens import Tokens

ROW = 128  # tokens of a row, where no text is longer: attention is then a tenth of the work
LEAST = 8  # tokens of room that a text takes at least: what bounds S


class Batch(NamedTuple):
    """Some of the texts, in rows.

    Attributes:
      ids: int32 [R, T]; 0 in padding.
      segments: int32 [R, T], which of its row's texts a token is of, from 1; 0 in padding.
      source: int64 [R, T], which of all tokens it is; -1 in padding.
      texts: int64 [m], those that are here.
      places: int64 [m], where each is among the R S that there is room for.
    """

    ids: np.ndarray
    segments: np.ndarray
    source: np.ndarray
    texts: np.ndarray
    places: np.ndarray


def room(length: int) -> int:
    """S of rows of `length` tokens."""
    return length // LEAST


def batches(pieces: Tokens, devices: int, budget: int) -> Iterator[Batch]:
    """Every text in one batch, the longest first, and beside each the longest others that its row has room for.

    T is a power of two: `ROW`, less where all the texts need less, or what the batch's longest needs. R is as many rows
    as the budget holds, but in the last batch, where it is the least power of two of them that is enough.

    Args:
      pieces: n texts.
      devices: R divides by it.
      budget: tokens a batch and device, padding included; a device has one row at least.
    """
    lengths = pieces.lengths.tolist()
    left = _Left(lengths)
    least = min(ROW, power_of_two(sum(max(LEAST, length) for length in lengths)))
    while left.longest:
        width = max(least, power_of_two(left.longest))
        each = max(1, budget // width)
        rows: list[list[int]] = []
        while left.longest and len(rows) < each * devices:
            rows.append(left.fill(width))
        each = min(each, power_of_two(-(-len(rows) // devices)))
        yield _batch(pieces, rows, (each * devices, width))


class _Left:
    """The texts that are in no row yet, by their length."""

    def __init__(self, lengths: list[int]):
        self._texts: dict[int, list[int]] = {}
        for text, length in reversed(list(enumerate(lengths))):
            self._texts.setdefault(max(LEAST, length), []).append(text)
        self._lengths = sorted(self._texts)

    @property
    def longest(self) -> int:
        """Tokens of room that the longest takes; 0 if none is left."""
        return self._lengths[-1] if self._lengths else 0

    def fill(self, space: int) -> list[int]:
        """Takes the texts of a row of `space` tokens: always the longest that there is room for."""
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
    for own_segments, own_source, row in zip(segments, source, rows, strict=False):
        begin = 0
        for number, one in enumerate(row, 1):
            end = begin + pieces.offsets[one + 1] - pieces.offsets[one]
            own_segments[begin:end] = number
            own_source[begin:end] = np.arange(pieces.offsets[one], pieces.offsets[one + 1])
            begin = end
    ids = np.where(source < 0, 0, pieces.ids[source]).astype(np.int32)
    places = [row * room(shape[1]) + place for row, texts in enumerate(rows) for place in range(len(texts))]
    return Batch(ids, segments, source, np.concatenate(rows).astype(np.int64), np.array(places))

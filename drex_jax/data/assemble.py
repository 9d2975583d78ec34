"""Assemble the chunks of a reader into one table: sort, merge duplicates, cut, filter, number."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.data.interactions import Interactions, by_first_appearance
from drex_jax.data.readers.chunk import Chunk
from drex_jax.data.strings import Strings, gather

MAX_IDS = 100_000_000  # distinct users, or items: about 15 GB of memory while they are numbered


@dataclasses.dataclass(frozen=True)
class Assembled:
    """A table, and counts of the rows that are not in it.

    Attributes:
      interactions: the table.
      rows: number of rows in the chunks.
      duplicates: rows merged into an equal row.
      cut: distinct rows removed by `max_interactions`.
      below_core: remaining rows removed by `k_core`.
    """

    interactions: Interactions
    rows: int
    duplicates: int
    cut: int
    below_core: int


def assemble_interactions(
    chunks: Iterable[Chunk],
    name: str,
    rating_range: tuple[float, float] | None,
    max_interactions: int | None = None,
    k_core: int = 0,
    scratch: Path | None = None,
    max_ids: int = MAX_IDS,
) -> Assembled:
    """Return one table of all chunks; its bytes do not depend on the order of the rows or on the chunk boundaries.

    Rows are sorted by (timestamp, user id, item id, row hash), ids by their bytes; rows that are equal in user, item,
    time, rating, text, vectors and given split are merged. The next steps are, in this order: the earliest
    `max_interactions`, the `k_core` filter, and numbering of users and items by first appearance. (The cut comes first
    because it defines the data set, as if the file had ended there; a core is a property of the data set.)

    Args:
      chunks: output of a reader.
      name: name of the data set, for results.
      rating_range: (lowest, highest) of the scale; dropped if no row has a rating.
      max_interactions: number of interactions to keep; None for all.
      k_core: keep users and items with at least so many interactions; 0 or 1 keeps all.
      scratch: folder of the backing file of large texts (see `drex_jax.data.strings.allocate`).
      max_ids: upper limit for the number of users, and for the number of items.

    Raises:
      UserError: there are more users or items than `max_ids`.
    """
    columns, user_ids, item_ids = _gather(chunks, max_ids)
    n = len(columns)
    rows = _order(columns, _byte_rank(user_ids), _byte_rank(item_ids))
    distinct = len(rows)
    rows = rows[:max_interactions]
    kept = len(rows)
    rows = rows[in_core(columns.user[rows], columns.item[rows], k_core)]
    user, users = by_first_appearance(columns.user[rows], len(user_ids))
    item, items = by_first_appearance(columns.item[rows], len(item_ids))
    rating = columns.rating[rows]
    interactions = Interactions(
        name=name,
        user_ids=Strings.of(user_ids[number] for number in users),
        item_ids=Strings.of(item_ids[number] for number in items),
        user=user,
        item=item,
        timestamp=columns.timestamp[rows],
        rating=rating,
        text=gather(columns.text, rows, scratch),
        vectors={name: vectors[rows] for name, vectors in columns.vectors.items()},
        rating_range=None if np.isnan(rating).all() else rating_range,
        given_split=None if columns.split is None else columns.split[rows],
    )
    return Assembled(interactions, n, n - distinct, distinct - kept, kept - len(rows))


def in_core(user: np.ndarray, item: np.ndarray, k: int) -> np.ndarray:
    """Return which interactions remain after users and items with fewer than k are removed repeatedly, bool [n].

    `user` and `item` are int [n]; `k` of 0 or 1 keeps all. Each removed user and item is visited once. So a chain,
    where every round removes only the two ends, takes time linear in its length.

    >>> in_core(np.array([0, 0, 1]), np.array([0, 1, 0]), 2).tolist()
    [False, False, False]
    >>> in_core(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 0]), 2).tolist()
    [True, True, True, True, False]
    """
    keep = np.ones(len(user), bool)
    if k <= 1:
        return keep
    sides = user, item
    counts = [np.bincount(side) for side in sides]
    orders = [np.argsort(side, kind="stable") for side in sides]
    ends = [np.cumsum(count) for count in counts]
    begins = [end - count for end, count in zip(ends, counts, strict=True)]
    leaving = [np.flatnonzero((count > 0) & (count < k)) for count in counts]
    while any(map(len, leaving)):
        removed = [
            order[_spans(begin[gone], end[gone])]
            for order, begin, end, gone in zip(orders, begins, ends, leaving, strict=True)
        ]
        rows = np.unique(np.concatenate(removed))
        rows = rows[keep[rows]]
        keep[rows] = False
        for number, (side, count) in enumerate(zip(sides, counts, strict=True)):
            touched, lost = np.unique(side[rows], return_counts=True)
            count[touched] -= lost
            leaving[number] = touched[(count[touched] > 0) & (count[touched] < k)]
    return keep


def _spans(begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the numbers of the spans [begin, end), one span after the other."""
    lengths = ends - begins
    return np.arange(lengths.sum()) + np.repeat(begins - np.cumsum(lengths) + lengths, lengths)


@dataclasses.dataclass(frozen=True)
class _Columns:
    """All chunks end to end, with users and items numbered by their first appearance in the file."""

    user: np.ndarray
    item: np.ndarray
    timestamp: np.ndarray
    rating: np.ndarray
    text: list[Strings]  # one column for each chunk
    begins: np.ndarray  # first row of each chunk
    vectors: dict[str, np.ndarray]
    split: np.ndarray | None

    def __len__(self) -> int:
        return len(self.user)


def _gather(chunks: Iterable[Chunk], max_ids: int) -> tuple[_Columns, list[bytes], list[bytes]]:
    """Return the columns, the user ids and the item ids; position = number."""
    user_numbers: dict[bytes, int] = {}
    item_numbers: dict[bytes, int] = {}
    users: list[np.ndarray] = []
    items: list[np.ndarray] = []
    parts: list[Chunk] = []
    nothing = Strings.empty(0)
    for chunk in chunks:
        users.append(numbers_of(chunk.user, user_numbers, max_ids))
        items.append(numbers_of(chunk.item, item_numbers, max_ids))
        parts.append(dataclasses.replace(chunk, user=nothing, item=nothing))
    widths = {name: vectors.shape[1] for part in parts for name, vectors in part.vectors.items()}
    has_split = any(part.split is not None for part in parts)
    columns = _Columns(
        user=np.concatenate([np.zeros(0, np.int32), *users]),
        item=np.concatenate([np.zeros(0, np.int32), *items]),
        # Adding zero makes -0.0 the 0.0 it equals, so that equal rows have equal bytes.
        timestamp=np.concatenate([np.zeros(0), *(part.timestamp for part in parts)]) + 0.0,
        rating=_canonical(np.concatenate([np.zeros(0, np.float32), *(part.rating for part in parts)])),
        text=[part.text for part in parts],
        begins=np.cumsum([0, *(len(part) for part in parts)])[:-1],
        vectors={
            name: _canonical(np.concatenate([part.vector(name, widths[name]) for part in parts]))
            for name in sorted(widths)
        },
        split=np.concatenate([_split(part) for part in parts]) if has_split else None,
    )
    return columns, list(user_numbers), list(item_numbers)


def numbers_of(ids: Strings, numbers: dict[bytes, int], max_ids: int = MAX_IDS) -> np.ndarray:
    """Return the number of each id, int32 [n]; new ids are added to `numbers`.

    Raises:
      UserError: `numbers` now holds more than `max_ids` ids.

    >>> known = {b"a": 0}
    >>> numbers_of(Strings.of(["b", "a", "b"]), known).tolist(), known
    ([1, 0, 1], {b'a': 0, b'b': 1})
    """
    encoded = ids.to_arrow().dictionary_encode()  # Python then sees each id of a chunk once
    of_dictionary = [numbers.setdefault(name, len(numbers)) for name in encoded.dictionary.to_pylist()]
    if len(numbers) > max_ids:
        raise UserError(
            f"more than {max_ids:,} different users or items, such as {ascii(ids[len(ids) - 1])[:80]}; is it the right "
            "column? data.max_ids says how many there may be"
        )
    return np.array(of_dictionary, np.int32)[encoded.indices.to_numpy()]


def _canonical(values: np.ndarray) -> np.ndarray:
    """Return the same values with a single bit pattern for NaN and a single one for zero."""
    return np.where(np.isnan(values), np.float32(np.nan), values + np.float32(0))


def _split(chunk: Chunk) -> np.ndarray:
    if chunk.split is None:
        raise ValueError("Chunk: some chunks have a split and others none")
    return chunk.split


def _byte_rank(ids: list[bytes]) -> np.ndarray:
    """Return the rank of each id in byte order, int32 [ids]."""
    rank = np.empty(len(ids), np.int32)
    rank[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids), dtype=np.int32)
    return rank


def _order(columns: _Columns, user_rank: np.ndarray, item_rank: np.ndarray) -> np.ndarray:
    """Return the distinct rows in the order of (timestamp, user id, item id, row hash), int64 [m]."""
    user, item, time = user_rank[columns.user], item_rank[columns.item], columns.timestamp
    order = np.lexsort((item, user, time))
    follows = np.zeros(len(order), bool)  # equal to the previous row in all three
    follows[1:] = (np.diff(time[order]) == 0) & (np.diff(user[order]) == 0) & (np.diff(item[order]) == 0)
    if not follows.any():
        return order
    # Only tied rows need a hash: 128 bits decide their order and equality.
    tied = follows.copy()
    tied[:-1] |= follows[1:]
    positions = np.flatnonzero(tied)
    hashes = np.array([_row_hash(columns, row) for row in order[positions]], np.dtype("S32"))
    group = np.cumsum(~follows)[positions]
    within = np.lexsort((hashes, group))
    order[positions] = order[positions][within]
    repeat = np.zeros(len(order), bool)
    repeat[positions[1:]] = (hashes[within][1:] == hashes[within][:-1]) & (np.diff(group) == 0)
    return order[~repeat]


def _row_hash(columns: _Columns, row: int) -> str:
    """Return a hash of the rating, vectors, split and text of a row: 128 bits in hexadecimal."""
    digest = hashlib.blake2b(columns.rating[row].tobytes(), digest_size=16)
    for vectors in columns.vectors.values():
        digest.update(vectors[row].tobytes())
    if columns.split is not None:
        digest.update(columns.split[row].tobytes())
    part = int(np.searchsorted(columns.begins, row, "right")) - 1
    digest.update(columns.text[part].bytes_at(int(row - columns.begins[part])))
    return digest.hexdigest()

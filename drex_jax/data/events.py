"""Interactions as a model reads them: arrays in learning order, with missing values in each modality."""

from __future__ import annotations

import dataclasses

import numpy as np

from drex_jax.data.interactions import Interactions, by_first_appearance
from drex_jax.data.split import Split
from drex_jax.data.tokens import Tokens

REVIEW = "review text"  # vector modality computed from the texts by an encoder; no column can have this name


@dataclasses.dataclass(frozen=True)
class Events:
    """n interactions in learning order: train, then validation, then test.

    Users and items are numbered by their first appearance in that order, so after k interactions every user and item
    seen so far has a smaller number than every one still to come.

    Attributes:
      user, item: numbers, int32 [n].
      timestamp: float64 [n], seconds.
      rating: float32 [n], NaN where missing.
      tokens: reviews as subword ids (an empty one is missing), or None if the data has no text.
      vectors: named numeric modalities, float32 [n, width], standardised on train; a row of NaN is missing.
      num_users, num_items: numbers of users and items of the whole data set, also in a part of it.
      item_vectors: named numeric modalities of items, float32 [num_items, width], not standardised; a row of
        NaN is missing.
    """

    user: np.ndarray
    item: np.ndarray
    timestamp: np.ndarray
    rating: np.ndarray
    tokens: Tokens | None
    vectors: dict[str, np.ndarray]
    num_users: int
    num_items: int
    item_vectors: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.user)

    @property
    def has_rating(self) -> np.ndarray:
        """True where there is a rating, bool [n]."""
        return ~np.isnan(self.rating)

    def __getitem__(self, rows: slice) -> Events:
        """Return a contiguous part; token ids and item vectors are shared, not copied."""
        begin, end, stride = rows.indices(len(self))
        if stride != 1:
            raise ValueError(f"only contiguous parts, not a stride of {stride}")
        end = max(begin, end)
        return self._at(rows, None if self.tokens is None else self.tokens.part(begin, end))

    def take(self, rows: np.ndarray) -> Events:
        """Return a copy of the interactions at `rows` (int [m], repeats allowed); item vectors are shared."""
        return self._at(rows, None if self.tokens is None else self.tokens.take(rows))

    def _at(self, rows: slice | np.ndarray, tokens: Tokens | None) -> Events:
        return dataclasses.replace(
            self,
            user=self.user[rows],
            item=self.item[rows],
            timestamp=self.timestamp[rows],
            rating=self.rating[rows],
            tokens=tokens,
            vectors={name: values[rows] for name, values in self.vectors.items()},
        )


def learning_order(split: Split) -> np.ndarray:
    """Return the rows of the data set in learning order, int64 [n]."""
    return np.concatenate([split.train, split.validation, split.test])


def _renumber(numbers: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Renumber by first appearance: int32 [n] new numbers, int64 [count] the old number of each new one.

    Numbers that do not appear come last.
    """
    new, old = by_first_appearance(numbers, count)
    return new, np.append(old, np.setdiff1d(np.arange(count), old))


def in_learning_order(interactions: Interactions, split: Split) -> Interactions:
    """Return the table in learning order, with users and items numbered by first appearance in it.

    For a global time split this is the table itself; the other splits put earlier times after later ones.
    """
    rows = learning_order(split)
    if np.array_equal(rows, np.arange(len(interactions))):
        return dataclasses.replace(interactions, given_split=None)
    table = interactions.take(rows)
    user, users = _renumber(table.user, table.num_users)
    item, items = _renumber(table.item, table.num_items)
    return dataclasses.replace(
        table,
        user_ids=table.user_ids.take(users),
        item_ids=table.item_ids.take(items),
        user=user,
        item=item,
        given_split=None,
        item_vectors={name: values[items] for name, values in table.item_vectors.items()},
    )


def scale(values: np.ndarray, num_train: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the factor that standardise vectors float32 [n, width], both float64 [width].

    Only the present train rows count. The factor is one over the standard deviation; 0 for a column that is constant in
    train; NaN if no row is present.
    """
    train = values[:num_train]
    present = train[~np.isnan(train).any(1)]
    if not len(present):
        return np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    mean, deviation = present.mean(0, dtype=np.float64), present.std(0, dtype=np.float64)
    return mean, np.where(deviation > 0, 1 / np.maximum(deviation, 1e-30), 0.0)


def scaled(values: np.ndarray, mean: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Return (values - mean) * factor, float32 [n, width], with mean and factor from `scale`."""
    return ((values - mean) * factor).astype(np.float32)


def standardise(values: np.ndarray, num_train: int) -> np.ndarray:
    """Return the columns with mean 0 and standard deviation 1 over the present train rows, float32 [n, width].

    A column that is constant in train becomes zero where present.

    >>> standardise(np.array([[1.0], [3.0], [5.0]], np.float32), num_train=2).ravel().tolist()
    [-1.0, 1.0, 3.0]
    """
    return scaled(values, *scale(values, num_train))


def build_events(
    interactions: Interactions,
    sizes: tuple[int, int, int],
    tokens: Tokens | None,
    shuffle_texts: np.random.Generator | None = None,
) -> Events:
    """Return the events of a table in learning order.

    Args:
      interactions: from `in_learning_order`.
      sizes: numbers of train, validation and test interactions.
      tokens: the texts of the table as subword ids; None leaves the texts out.
      shuffle_texts: generator for the control experiment that moves every text to another interaction of the same part
        of the split; None: texts stay.
    """
    vectors = interactions.vectors
    if shuffle_texts is not None:
        begins = np.cumsum((0, *sizes))
        source = np.arange(len(interactions))
        for begin, size in zip(begins[:-1], sizes, strict=True):
            ring = begin + shuffle_texts.permutation(size)  # each takes the text of the next in a random ring
            source[ring] = np.roll(ring, -1)
        tokens = None if tokens is None else tokens.take(source)
        vectors = {name: values[source] if name == REVIEW else values for name, values in vectors.items()}
    return Events(
        user=interactions.user,
        item=interactions.item,
        timestamp=interactions.timestamp,
        rating=interactions.rating,
        tokens=tokens,
        vectors={name: standardise(values, sizes[0]) for name, values in vectors.items()},
        num_users=interactions.num_users,
        num_items=interactions.num_items,
        item_vectors=interactions.item_vectors,
    )

"""Interactions as a model reads them: arrays in the order of learning, each modality with its missing values."""

from __future__ import annotations

import dataclasses

import numpy as np

from drex_jax.data.interactions import Interactions, by_first_appearance
from drex_jax.data.split import Split
from drex_jax.data.tokens import Tokens

REVIEW = "review text"  # the vector modality that an encoder made of the texts; no column can be named so


@dataclasses.dataclass(frozen=True)
class Events:
    """n interactions in the order in which a model meets them: train, then validation, then test.

    Users and items are numbered by their first appearance in that order, so everything a model knows after k
    interactions has a number below everything it has yet to meet.

    Attributes:
      user, item: int32 [n].
      timestamp: float64 [n], seconds.
      rating: float32 [n], NaN where missing.
      tokens: the reviews as subword ids (an empty one is missing), or None where the data has no text.
      vectors: named numeric modalities, float32 [n, width], standardised on train; a row of NaN is missing.
      num_users, num_items: of the whole data set, so of tables.
      item_vectors: named numeric modalities of items, float32 [num_items, width], as the data set has them (a model
        that wants them standardised does it); a row of NaN is missing.
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
        """Bool [n]."""
        return ~np.isnan(self.rating)

    def __getitem__(self, rows: slice) -> Events:
        """A contiguous part; token ids and item vectors are shared, not copied."""
        begin, end, stride = rows.indices(len(self))
        if stride != 1:
            raise ValueError(f"only contiguous parts, not a stride of {stride}")
        end = max(begin, end)
        return self._at(rows, None if self.tokens is None else self.tokens.part(begin, end))

    def take(self, rows: np.ndarray) -> Events:
        """The interactions at `rows` (int [m], any of them any number of times), as a copy; item vectors are shared."""
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
    """int64 [n]: the rows of the data set as a model meets them."""
    return np.concatenate([split.train, split.validation, split.test])


def in_learning_order(interactions: Interactions, split: Split) -> Interactions:
    """The same table in the order of learning, users and items renumbered by first appearance in it.

    For a global time split this is the table itself; the other splits put earlier moments after later ones.
    """
    rows = learning_order(split)
    if np.array_equal(rows, np.arange(len(interactions))):
        return dataclasses.replace(interactions, given_split=None)
    user, users = by_first_appearance(interactions.user[rows], interactions.num_users)
    item, items = by_first_appearance(interactions.item[rows], interactions.num_items)
    users, items = _with_absent(users, interactions.num_users), _with_absent(items, interactions.num_items)
    return dataclasses.replace(
        interactions,
        user_ids=interactions.user_ids.take(users),
        item_ids=interactions.item_ids.take(items),
        user=user,
        item=item,
        timestamp=interactions.timestamp[rows],
        rating=interactions.rating[rows],
        text=interactions.text.take(rows),
        vectors={name: values[rows] for name, values in interactions.vectors.items()},
        given_split=None,
        item_vectors={name: values[items] for name, values in interactions.item_vectors.items()},
    )


def _with_absent(present: np.ndarray, count: int) -> np.ndarray:
    """The numbers that are present, followed by the other numbers below `count`: int64 [count]."""
    return np.append(present, np.setdiff1d(np.arange(count), present))


def scale(values: np.ndarray, num_train: int) -> tuple[np.ndarray, np.ndarray]:
    """What standardises vectors float32 [n, width]: the mean of the present train rows, and a factor, float64 [width].

    The factor is one over the deviation; 0 for a column that does not vary in train; NaN where no row is present.
    """
    train = values[:num_train]
    present = train[~np.isnan(train).any(1)]
    if not len(present):
        return np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    mean, deviation = present.mean(0, dtype=np.float64), present.std(0, dtype=np.float64)
    return mean, np.where(deviation > 0, 1 / np.maximum(deviation, 1e-30), 0.0)


def scaled(values: np.ndarray, mean: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """float32 [n, width]: values [n, width] less the mean, times the factor, as `scale` gives them."""
    return ((values - mean) * factor).astype(np.float32)


def standardise(values: np.ndarray, num_train: int) -> np.ndarray:
    """float32 [n, width]: each column less its mean over the present train rows, over its deviation there.

    A column that does not vary in train becomes zero where present.
    """
    return scaled(values, *scale(values, num_train))


def build_events(
    interactions: Interactions,
    sizes: tuple[int, int, int],
    tokens: Tokens | None,
    shuffle_texts: np.random.Generator | None = None,
) -> Events:
    """The arrays of a table that stands in the order of learning.

    Args:
      interactions: from `in_learning_order`.
      sizes: how many train, validation and test interactions it holds, in that order.
      tokens: of its texts, in the same order; None leaves the texts out.
      shuffle_texts: the control experiment: every text moves to another interaction of its part of the split.
    """
    vectors = interactions.vectors
    if shuffle_texts is not None:
        begins = np.cumsum((0, *sizes))
        source = np.arange(len(interactions))
        for begin, size in zip(begins[:-1], sizes, strict=True):
            ring = begin + shuffle_texts.permutation(size)  # each takes the text of the next one in a random ring
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


def train_pairs(events: Events, sizes: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The distinct pairs of train: users and items, int32 each, ascending."""
    keys = events.user[: sizes[0]].astype(np.int64) * events.num_items + events.item[: sizes[0]]
    user, item = np.divmod(np.unique(keys), events.num_items)
    return user.astype(np.int32), item.astype(np.int32)

"""The one table type: every interaction of a data set, as columns in time order."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from pathlib import Path

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.data import storage
from drex_jax.data.strings import Strings

MIN_TIMESTAMP = -2208988800.0  # 1900-01-01
MAX_TIMESTAMP = 7258118400.0  # 2200-01-01
SCHEMA = "interactions-1"


@dataclasses.dataclass(frozen=True)
class Interactions:
    """Interactions in the order of (timestamp, user id, item id, row hash).

    N rows; users and items are numbered by their first appearance in that order, so that neither the order of the
    input rows nor what comes later changes a number. Columns may be memory-mapped.

    Attributes:
      name: the data set's name, for results.
      user_ids, item_ids: the ids as the file has them; position = number.
      user, item: int32 [N].
      timestamp: float64 [N], seconds since 1970, non-decreasing.
      rating: float32 [N]; NaN where missing.
      text: the review; an empty string is a missing text.
      vectors: named numeric modalities, float32 [N, width]; a row of NaN is missing.
      item_vectors: named numeric modalities of items (features of their images, say), float32 [I, width], row = item
        number; a row of NaN is missing.
      rating_range: (lowest, highest) of the scale, from the config or the data set's definition; None without ratings.
      given_split: int8 [N] of the file's own split column (0 train, 1 validation, 2 test), or None.
    """

    name: str
    user_ids: Strings
    item_ids: Strings
    user: np.ndarray
    item: np.ndarray
    timestamp: np.ndarray
    rating: np.ndarray
    text: Strings
    vectors: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    rating_range: tuple[float, float] | None = None
    given_split: np.ndarray | None = None
    item_vectors: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.user)

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        return len(self.item_ids)

    @property
    def has_rating(self) -> np.ndarray:
        """Whether there is a rating: bool [N]."""
        return ~np.isnan(self.rating)

    @property
    def has_text(self) -> np.ndarray:
        """Whether there is a text: bool [N]."""
        return self.text.lengths > 0

    def take(self, rows: np.ndarray) -> Interactions:
        """The interactions at `rows` (int [m], ascending), with the numbers, ids and item vectors of the whole table.

        A part need not hold every user and item, so `validate` is for whole tables only.
        """
        rows = np.asarray(rows, np.int64)
        return dataclasses.replace(
            self,
            user=self.user[rows],
            item=self.item[rows],
            timestamp=self.timestamp[rows],
            rating=self.rating[rows],
            text=self.text.take(rows),
            vectors={name: vectors[rows] for name, vectors in self.vectors.items()},
            given_split=None if self.given_split is None else self.given_split[rows],
        )

    def validate(self) -> None:
        """Checks every promise of the class. Raises ValueError naming the first that is broken (a defect, ours)."""
        n = len(self)
        columns = {"item": self.item, "timestamp": self.timestamp, "rating": self.rating, "text": self.text}
        columns |= {f"vector {name}": vectors for name, vectors in self.vectors.items()}
        if self.given_split is not None:
            columns["given_split"] = self.given_split
        for name, column in columns.items():
            _require(len(column) == n, f"{name} has {len(column)} rows, user has {n}")
        types = {"user": (self.user, np.int32), "item": (self.item, np.int32), "rating": (self.rating, np.float32)}
        types |= {"timestamp": (self.timestamp, np.float64)}
        types |= {f"vector {name}": (vectors, np.float32) for name, vectors in self.vectors.items()}
        types |= {f"item vector {name}": (vectors, np.float32) for name, vectors in self.item_vectors.items()}
        for name, (column, dtype) in types.items():
            _require(column.dtype == dtype, f"{name} is {column.dtype}, not {np.dtype(dtype)}")
        time = self.timestamp
        _require(bool(np.isfinite(time).all()), "a timestamp is not finite")
        _require(bool((np.diff(time) >= 0).all()), "timestamps are not in order")
        if n:
            _require(time[0] >= MIN_TIMESTAMP and time[-1] <= MAX_TIMESTAMP, "a timestamp is outside 1900..2200")
        for side, numbers, ids in (("user", self.user, self.user_ids), ("item", self.item, self.item_ids)):
            _require(_numbered_by_appearance(numbers, len(ids)), f"{side}s are not numbered by first appearance")
            _require(bool((ids.lengths > 0).all()), f"a {side} id is empty")
            _require(len({ids.bytes_at(row) for row in range(len(ids))}) == len(ids), f"a {side} id occurs twice")
        given = self.rating[self.has_rating]
        if len(given):
            low, high = self.rating_range or (np.inf, -np.inf)
            # The range is compared as float32, as which the ratings are kept.
            inside = (given >= np.float32(low)) & (given <= np.float32(high))
            _require(bool(inside.all()), f"a rating is outside {self.rating_range}")
        for name, vectors in self.vectors.items():
            _require(_present_or_absent(vectors), f"vector {name} has a row that is not finite")
        for name, vectors in self.item_vectors.items():
            _require(len(vectors) == self.num_items, f"item vector {name} has {len(vectors)} rows, not one an item")
            _require(_present_or_absent(vectors), f"item vector {name} has a row that is not finite")
        if self.given_split is not None:
            _require(bool(np.isin(self.given_split, (0, 1, 2)).all()), "given_split is none of 0, 1, 2")

    def save(self, folder: str | Path) -> None:
        """Writes a folder of .npy columns with a small JSON, whole or not at all; one that was there is replaced."""
        columns: dict[str, np.ndarray | Strings] = {
            "user_ids": self.user_ids,
            "item_ids": self.item_ids,
            "user": self.user,
            "item": self.item,
            "timestamp": self.timestamp,
            "rating": self.rating,
            "text": self.text,
        }
        names, item_names = sorted(self.vectors), sorted(self.item_vectors)
        columns |= {f"vector{position}": self.vectors[name] for position, name in enumerate(names)}
        columns |= {f"item_vector{position}": self.item_vectors[name] for position, name in enumerate(item_names)}
        if self.given_split is not None:
            columns["given_split"] = self.given_split
        header = {
            "schema": SCHEMA,
            "name": self.name,
            "interactions": len(self),
            "rating_range": self.rating_range,
            "vectors": names,
            "item_vectors": item_names,
            "given_split": self.given_split is not None,
        }
        storage.write_columns(folder, header, columns)

    @classmethod
    def load(cls, folder: str | Path, mmap: bool = True) -> Interactions:
        """Reads what `save` wrote; large columns are memory-mapped, so that opening costs no memory.

        Raises:
          UserError: a missing or damaged file, by its name. Of the values only users and items are checked (see
            `validate` for the rest).
        """
        header = storage.read_header(folder, SCHEMA)
        try:
            name, n, has_split = str(header["name"]), int(header["interactions"]), bool(header["given_split"])
            names = _names(header["vectors"])
            item_names = _names(header.get("item_vectors", []))  # older folders have none
            low_high = None if header["rating_range"] is None else _scale(header["rating_range"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{Path(folder) / 'columns.json'}: damaged ({type(error).__name__})") from error
        columns: dict[str, np.ndarray] = {
            "user": storage.read_array(folder, "user", np.int32, mmap=mmap),
            "item": storage.read_array(folder, "item", np.int32, mmap=mmap),
            "timestamp": storage.read_array(folder, "timestamp", np.float64, mmap=mmap),
            "rating": storage.read_array(folder, "rating", np.float32, mmap=mmap),
        }
        vectors = {
            name: storage.read_array(folder, f"vector{position}", np.float32, 2, mmap)
            for position, name in enumerate(names)
        }
        item_vectors = {
            name: storage.read_array(folder, f"item_vector{position}", np.float32, 2, mmap)
            for position, name in enumerate(item_names)
        }
        given_split = storage.read_array(folder, "given_split", np.int8, mmap=mmap) if has_split else None
        text = storage.read_strings(folder, "text", mmap)
        checked = {**columns, "text.offsets": text, "given_split": text if given_split is None else given_split}
        checked |= {f"vector{position}": vectors[name] for position, name in enumerate(names)}
        for column, values in checked.items():
            if len(values) != n:
                raise UserError(
                    f"{Path(folder) / f'{column}.npy'}: {len(values):,} rows where columns.json says {n:,}; "
                    "the run directory is damaged"
                )
        ids = {side: storage.read_strings(folder, f"{side}_ids", mmap) for side in ("user", "item")}
        for side, known in ids.items():
            if n and not 0 <= columns[side].min() <= columns[side].max() < len(known):
                raise UserError(
                    f"{Path(folder) / f'{side}.npy'}: numbers beyond the {len(known):,} ids of {side}_ids; "
                    "the run directory is damaged"
                )
        for position, values in enumerate(item_vectors.values()):
            if len(values) != len(ids["item"]):
                raise UserError(
                    f"{Path(folder) / f'item_vector{position}.npy'}: {len(values):,} rows for {len(ids['item']):,} "
                    "items; the run directory is damaged"
                )
        return cls(
            name=name,
            user_ids=ids["user"],
            item_ids=ids["item"],
            text=text,
            vectors=vectors,
            rating_range=low_high,
            given_split=given_split,
            item_vectors=item_vectors,
            **columns,
        )

    def sha256(self) -> str:
        """A fingerprint of every value, the same however the input rows were ordered."""
        digest = hashlib.sha256()
        columns = [self.user_ids.data, self.user_ids.offsets, self.item_ids.data, self.item_ids.offsets]
        columns += [self.user, self.item, self.timestamp, self.rating, self.text.data, self.text.offsets]
        for name in sorted(self.vectors):
            digest.update(name.encode())
            columns.append(self.vectors[name])
        if self.given_split is not None:
            columns.append(self.given_split)
        for name in sorted(self.item_vectors):
            digest.update(f"item {name}".encode())
            columns.append(self.item_vectors[name])
        for column in columns:
            digest.update(str((column.dtype.str, column.shape)).encode())
            digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()


def by_first_appearance(numbers: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Renumber users (or items) by their first appearance.

    Args:
      numbers: int [n], from 0 to below `count`.
      count: how many numbers there may be.

    Returns:
      The new numbers, int32 [n], and the old number of each new one, int64 [distinct].
    """
    first = np.full(count, len(numbers), np.int64)
    first[numbers[::-1]] = np.arange(len(numbers))[::-1]  # the earliest place of a number is written last
    old = np.argsort(first, kind="stable")[: np.count_nonzero(first < len(numbers))]
    new = np.empty(count, np.int32)
    new[old] = np.arange(len(old), dtype=np.int32)
    return new[numbers], old


def _names(value: object) -> list[str]:
    """Distinct names. Raises ValueError."""
    if not isinstance(value, list) or not all(type(name) is str for name in value) or len(set(value)) < len(value):
        raise ValueError("no list of names")
    return value


def _scale(value: object) -> tuple[float, float]:
    """The ends of a scale. Raises ValueError or TypeError."""
    low, high = map(float, value)  # pyright: ignore[reportArgumentType] (what is not two numbers raises)
    if not -math.inf < low < high < math.inf:
        raise ValueError("no scale")
    return low, high


def _require(holds: bool, promise: str) -> None:
    if not holds:
        raise ValueError(f"Interactions: {promise}")


def _present_or_absent(vectors: np.ndarray) -> bool:
    """Whether each row is finite throughout, or NaN throughout."""
    return bool((np.isfinite(vectors).all(axis=1) | np.isnan(vectors).all(axis=1)).all())


def _numbered_by_appearance(numbers: np.ndarray, count: int) -> bool:
    """Whether `numbers` are 0 .. count - 1, each appearing first after all smaller ones."""
    if not len(numbers):
        return count == 0
    highest = np.maximum.accumulate(numbers)
    steps = np.diff(highest, prepend=np.int32(-1))
    return numbers.min() == 0 and highest[-1] == count - 1 and bool((steps <= 1).all())

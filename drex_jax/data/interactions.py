"""The table of a data set: every interaction, as columns in time order."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.data import storage
from drex_jax.data.strings import Strings

MIN_TIMESTAMP = -2208988800.0  # 1900-01-01
MAX_TIMESTAMP = 7258118400.0  # 2200-01-01
SCHEMA = "interactions-1"
_NUMBERS = {"user": np.int32, "item": np.int32, "timestamp": np.float64, "rating": np.float32}
_STRINGS = ("user_ids", "item_ids", "text")


@dataclasses.dataclass(frozen=True)
class Interactions:
    """Interactions in the order of (timestamp, user id, item id, row hash).

    N rows; users and items are numbered by their first appearance in that order, so neither the order of the input
    rows nor later rows change a number. Columns may be memory-mapped.

    Attributes:
      name: name of the data set, for results.
      user_ids, item_ids: ids as the file has them; position = number.
      user, item: numbers, int32 [N].
      timestamp: float64 [N], seconds since 1970, non-decreasing.
      rating: float32 [N]; NaN where missing.
      text: reviews; an empty string is a missing text.
      vectors: named numeric modalities, float32 [N, width]; a row of NaN is missing.
      item_vectors: named numeric modalities of items (for example image features), float32 [I, width], row = item
        number; a row of NaN is missing.
      rating_range: (lowest, highest) of the scale, from the configuration or the format; None without ratings.
      given_split: split column of the file (0 train, 1 validation, 2 test), int8 [N], or None.
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
        """True where there is a rating, bool [N]."""
        return ~np.isnan(self.rating)

    @property
    def has_text(self) -> np.ndarray:
        """True where there is a text, bool [N]."""
        return self.text.lengths > 0

    def take(self, rows: np.ndarray) -> Interactions:
        """Return the interactions at `rows` (int [m]), with the numbers, ids and item vectors of the whole table.

        The result may lack some users and items, so `validate` is for whole tables only.
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
        """Check every promise of the class. Raise ValueError for the first that is broken (a defect of ours)."""
        n = len(self)
        columns: dict[str, tuple[Any, Any]] = {name: (getattr(self, name), dtype) for name, dtype in _NUMBERS.items()}
        columns |= {f"vector {name}": (values, np.float32) for name, values in self.vectors.items()}
        if self.given_split is not None:
            columns["given_split"] = (self.given_split, np.int8)
        _require(len(self.text) == n, f"text has {len(self.text)} rows, user has {n}")
        for name, (column, dtype) in columns.items():
            _require(len(column) == n, f"{name} has {len(column)} rows, user has {n}")
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
            # Ratings are float32, so the range is compared as float32.
            inside = (given >= np.float32(low)) & (given <= np.float32(high))
            _require(bool(inside.all()), f"a rating is outside {self.rating_range}")
        for name, values in self.vectors.items():
            _require(_present_or_absent(values), f"vector {name} has a row that is not finite")
        for name, values in self.item_vectors.items():
            _require(len(values) == self.num_items, f"item vector {name} has {len(values)} rows, not {self.num_items}")
            _require(values.dtype == np.float32, f"item vector {name} is {values.dtype}, not float32")
            _require(_present_or_absent(values), f"item vector {name} has a row that is not finite")
        if self.given_split is not None:
            _require(bool(np.isin(self.given_split, (0, 1, 2)).all()), "given_split is none of 0, 1, 2")

    def save(self, folder: str | Path) -> None:
        """Write a folder of .npy columns and a small JSON file, atomically; an existing folder is replaced."""
        columns = {name: getattr(self, name) for name in (*_STRINGS, *_NUMBERS)}
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
        """Read a folder written by `save`; large columns are memory-mapped, so opening takes no memory.

        Raises:
          UserError: a file is missing or damaged; the message names it. Of the values only users and items are checked
            (see `validate` for the others).
        """
        folder = Path(folder)
        header = storage.read_header(folder, SCHEMA)
        try:
            name, n, has_split = str(header["name"]), int(header["interactions"]), bool(header["given_split"])
            names = _names(header["vectors"])
            item_names = _names(header.get("item_vectors", []))  # older folders have none
            low_high = None if header["rating_range"] is None else _scale(header["rating_range"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{folder / 'columns.json'}: damaged ({type(error).__name__})") from error

        def require_rows(column: str, rows: int, expected: int) -> None:
            if rows != expected:
                raise UserError(
                    f"{folder / f'{column}.npy'}: {rows:,} rows instead of {expected:,}; the run directory is damaged"
                )

        def read(column: str, dtype: type, rows: int, ndim: int = 1) -> np.ndarray:
            values = storage.read_array(folder, column, dtype, ndim, mmap)
            require_rows(column, len(values), rows)
            return values

        columns: dict[str, Any] = {column: storage.read_strings(folder, column, mmap) for column in _STRINGS}
        require_rows("text.offsets", len(columns["text"]), n)
        columns |= {column: read(column, dtype, n) for column, dtype in _NUMBERS.items()}
        for side in ("user", "item"):
            count = len(columns[f"{side}_ids"])
            if n and not 0 <= columns[side].min() <= columns[side].max() < count:
                raise UserError(
                    f"{folder / f'{side}.npy'}: numbers beyond the {count:,} ids of {side}_ids; "
                    "the run directory is damaged"
                )
        items = len(columns["item_ids"])
        return cls(
            name=name,
            vectors={name: read(f"vector{k}", np.float32, n, 2) for k, name in enumerate(names)},
            rating_range=low_high,
            given_split=read("given_split", np.int8, n) if has_split else None,
            item_vectors={name: read(f"item_vector{k}", np.float32, items, 2) for k, name in enumerate(item_names)},
            **columns,
        )

    def sha256(self) -> str:
        """Return a fingerprint of every value; it does not depend on the order of the input rows."""
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
      count: upper limit of the numbers.

    Returns:
      The new numbers, int32 [n], and the old number of each new one, int64 [distinct].

    >>> new, old = by_first_appearance(np.array([5, 2, 5, 0]), 6)
    >>> new.tolist(), old.tolist()
    ([0, 1, 0, 2], [5, 2, 0])
    """
    first = np.full(count, len(numbers), np.int64)
    first[numbers[::-1]] = np.arange(len(numbers))[::-1]  # the earliest position of a number is written last
    old = np.argsort(first, kind="stable")[: np.count_nonzero(first < len(numbers))]
    new = np.empty(count, np.int32)
    new[old] = np.arange(len(old), dtype=np.int32)
    return new[numbers], old


def _names(value: object) -> list[str]:
    """Return a list of distinct names. Raises ValueError for anything else."""
    if not isinstance(value, list) or not all(type(name) is str for name in value) or len(set(value)) < len(value):
        raise ValueError("no list of names")
    return value


def _scale(value: object) -> tuple[float, float]:
    """Return the ends of a scale. Raises ValueError or TypeError for anything else."""
    low, high = map(float, value)  # pyright: ignore[reportArgumentType] (anything but two numbers raises)
    if not -math.inf < low < high < math.inf:
        raise ValueError("no scale")
    return low, high


def _require(holds: bool, promise: str) -> None:
    if not holds:
        raise ValueError(f"Interactions: {promise}")


def _present_or_absent(vectors: np.ndarray) -> bool:
    """Return True if each row is entirely finite or entirely NaN."""
    return bool((np.isfinite(vectors).all(axis=1) | np.isnan(vectors).all(axis=1)).all())


def _numbered_by_appearance(numbers: np.ndarray, count: int) -> bool:
    """Return True if `numbers` are 0 .. count - 1 and each appears first after all smaller ones."""
    if not len(numbers):
        return count == 0
    highest = np.maximum.accumulate(numbers)
    steps = np.diff(highest, prepend=np.int32(-1))
    return numbers.min() == 0 and highest[-1] == count - 1 and bool((steps <= 1).all())

"""Split of a data set into train, validation and test."""

from __future__ import annotations

import dataclasses

import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.common.settings import number, one_of, setting
from drex_jax.data.interactions import Interactions

KINDS = ("global_time", "leave_last_out", "random", "given")
REMEDIES = {
    "leave_last_out": "some user should have 3 interactions or more",
    "random": "it takes more of them, or a larger split.validation and split.test",
    "given": "data.columns.split should hold all of 0 train, 1 validation and 2 test",
}


@dataclasses.dataclass(frozen=True)
class SplitSettings:
    """`split`: division of the interactions into train, validation and test."""

    kind: str = setting("global_time", one_of(*KINDS), "how the data are split")
    validation: float = setting(0.1, number(above=0.0, below=1.0), "share of validation")
    test: float = setting(0.1, number(above=0.0, below=1.0), "share of test")


@dataclasses.dataclass(frozen=True)
class Split:
    """The rows of each part. The parts are disjoint, none is empty, and together they are the whole data set.

    Attributes:
      kind: one of `KINDS`.
      train, validation, test: rows of the interactions, int64, ascending.
      boundaries: first timestamps of validation and test for `global_time`, else empty; can be written as JSON.
    """

    kind: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    boundaries: dict[str, float]

    @property
    def sizes(self) -> dict[str, int]:
        """Number of interactions of each part."""
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}


def split_interactions(
    interactions: Interactions, kind: str = "global_time", validation: float = 0.1, test: float = 0.1, seed: int = 0
) -> Split:
    """Split a data set.

    Args:
      interactions: the table, in time order.
      kind: `global_time`: the earliest interactions are train, the next ones validation, the latest test; a boundary
        moves to the next change of timestamp, so that equal timestamps are on the same side. `leave_last_out`: the last
        interaction of each user is test and the one before it validation; users with fewer than 3 stay in train.
        `random`: rows at random. `given`: the split column of the file.
      validation: share of validation in all interactions, for `global_time` and `random`.
      test: share of test in all interactions, for `global_time` and `random`.
      seed: seed of `random`.

    Raises:
      UserError: the kind is unknown; the shares leave no train part; there is no split column; a part would be empty.

    >>> from drex_jax.data.strings import Strings
    >>> table = Interactions(
    ...     "ten", Strings.of(["u"]), Strings.of(["i"]), np.zeros(10, np.int32), np.zeros(10, np.int32),
    ...     np.arange(10.0), np.ones(10, np.float32), Strings.empty(10),
    ... )
    >>> parts = split_interactions(table)
    >>> parts.sizes, parts.boundaries
    ({'train': 8, 'validation': 1, 'test': 1}, {'validation': 8.0, 'test': 9.0})
    """
    if kind in ("global_time", "random") and not (validation > 0 and test > 0 and validation + test < 1):
        raise UserError(
            f"split.validation={validation:g} and split.test={test:g}: both should be above 0, and together below 1"
        )
    if kind == "global_time":
        return _global_time(interactions, validation, test)
    if kind == "leave_last_out":
        part = _last_out(interactions)
    elif kind == "random":
        part = _random(len(interactions), validation, test, seed)
    elif kind == "given":
        if interactions.given_split is None:
            raise UserError(
                "split.kind=given: the data have no split column (format=table reads one: data.columns.split)"
            )
        part = np.asarray(interactions.given_split)
    else:
        raise UserError(f"split.kind={kind!r} is unknown: it should be one of {' '.join(KINDS)}")
    train, held_out, last = (np.flatnonzero(part == number) for number in range(3))
    for name, rows in (("train", train), ("validation", held_out), ("test", last)):
        if not len(rows):
            raise UserError(
                f"split.kind={kind}: the {name} part of {len(interactions):,} interactions would be empty; "
                f"{REMEDIES[kind]}"
            )
    return Split(kind, train, held_out, last, {})


def _global_time(interactions: Interactions, validation: float, test: float) -> Split:
    time, n = interactions.timestamp, len(interactions)
    first = _next_change(time, round(n * (1 - validation - test)))
    second = _next_change(time, round(n * (1 - test)))
    for name, begin, end in (("train", 0, first), ("validation", first, second), ("test", second, n)):
        if begin >= end:
            raise UserError(
                f"split.kind=global_time: the {name} part would be empty: {n:,} interactions at "
                f"{len(np.unique(time)):,} different moments are too few for shares of {validation:g} validation and "
                f"{test:g} test"
            )
    boundaries = {"validation": float(time[first]), "test": float(time[second])}
    return Split("global_time", np.arange(first), np.arange(first, second), np.arange(second, n), boundaries)


def _next_change(time: np.ndarray, row: int) -> int:
    """Return the first row at or after `row` with another timestamp than the row before it."""
    return int(np.searchsorted(time, time[row - 1], "right")) if row > 0 else 0


def _last_out(interactions: Interactions) -> np.ndarray:
    """Return the part of each row, int8 [N]: 0 train, 1 validation, 2 test."""
    n = len(interactions)
    by_user = np.argsort(interactions.user, kind="stable")  # the rows of each user together, in time order
    counts = np.bincount(interactions.user, minlength=interactions.num_users)
    last = np.cumsum(counts)[counts >= 3] - 1
    part = np.zeros(n, np.int8)
    part[by_user[last]] = 2
    part[by_user[last - 1]] = 1
    return part


def _random(n: int, validation: float, test: float, seed: int) -> np.ndarray:
    """Return the part of each row, int8 [N]: 0 train, 1 validation, 2 test."""
    shuffled = np.random.default_rng(seed).permutation(n)
    part = np.zeros(n, np.int8)
    part[shuffled[round(n * (1 - validation - test)) :]] = 1
    part[shuffled[round(n * (1 - test)) :]] = 2
    return part

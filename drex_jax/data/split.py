"""Train, validation and test parts of a data set."""

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
    """`split`: which interactions train, which validate and which test."""

    kind: str = setting("global_time", one_of(*KINDS), "how the data are split")
    validation: float = setting(0.1, number(above=0.0, below=1.0), "share of validation")
    test: float = setting(0.1, number(above=0.0, below=1.0), "share of test")


@dataclasses.dataclass(frozen=True)
class Split:
    """Which interactions are in which part. The parts are disjoint, together everything, and none is empty.

    Attributes:
      kind: how it was made.
      train, validation, test: int64 rows of the interactions, ascending.
      boundaries: of `global_time`, the first timestamps of validation and test; else empty. JSON-able.
    """

    kind: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    boundaries: dict[str, float]

    @property
    def sizes(self) -> dict[str, int]:
        """Interactions of each part."""
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}


def split_interactions(
    interactions: Interactions, kind: str = "global_time", validation: float = 0.1, test: float = 0.1, seed: int = 0
) -> Split:
    """Splits a data set.

    Args:
      interactions: in time order.
      kind: `global_time`: the earliest interactions train, then validation, then test; a boundary moves later, to the
        next change of timestamp, so that no moment is on both sides. `leave_last_out`: each user's last interaction is
        test and the one before it validation; users with fewer than 3 stay in train. `random`: rows at random.
        `given`: the file's own split column.
      validation: its share of all interactions, for `global_time` and `random`.
      test: likewise.
      seed: of `random`.

    Raises:
      UserError: an unknown kind, shares that leave nothing to train on, no split column, or a part that would be empty.
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
    """The first row at or after `row` whose timestamp differs from that of the row before it."""
    return int(np.searchsorted(time, time[row - 1], "right")) if row > 0 else 0


def _last_out(interactions: Interactions) -> np.ndarray:
    """int8 [N]: 0 train, 1 validation, 2 test."""
    n = len(interactions)
    by_user = np.argsort(interactions.user, kind="stable")  # each user's rows together, in time order
    counts = np.bincount(interactions.user, minlength=interactions.num_users)
    last = np.cumsum(counts)[counts >= 3] - 1
    part = np.zeros(n, np.int8)
    part[by_user[last]] = 2
    part[by_user[last - 1]] = 1
    return part


def _random(n: int, validation: float, test: float, seed: int) -> np.ndarray:
    """int8 [N]: 0 train, 1 validation, 2 test."""
    shuffled = np.random.default_rng(seed).permutation(n)
    part = np.zeros(n, np.int8)
    part[shuffled[round(n * (1 - validation - test)) :]] = 1
    part[shuffled[round(n * (1 - test)) :]] = 2
    return part

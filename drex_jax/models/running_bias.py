"""Static and running biases: a baseline that is hard to beat, and part of DReX's residual.

Both predict mean + user bias + item bias, in the units of the ratings. The static bias is fitted on train and is then
constant. The running bias is updated with every rated interaction (the rule is our choice; see `RunningBias`). A rating
of NaN is missing: it updates nothing and is not counted.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numba
import numpy as np

from drex_jax.common.errors import UserError
from drex_jax.models.constants import unrecorded

SHRINKAGES = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)  # the grid of both lambdas, in ratings
DEFAULT_SHRINKAGE = 5.0  # used if validation has no ratings to choose by
SWEEPS = 20  # iterations of alternating least squares; on real data biases converge to 1e-4 in fewer than 10


@dataclasses.dataclass(frozen=True)
class StaticBias:
    """Mean + user bias + item bias, fitted on train.

    Attributes:
      mean: the mean of the train ratings.
      user: float64 [users], the user biases; 0 for a user without a rating.
      item: float64 [items], the item biases.
      user_shrinkage, item_shrinkage: the lambdas that the biases were fitted with.
      validation_mse: the validation error by which the lambdas were chosen; NaN if validation has no ratings.
    """

    mean: float
    user: np.ndarray
    item: np.ndarray
    user_shrinkage: float
    item_shrinkage: float
    validation_mse: float = float("nan")

    def predict(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Return predictions float64 [n], not clipped, for users and items int [n]."""
        return self.mean + self.user[user] + self.item[item]


@dataclasses.dataclass(frozen=True)
class BiasState:
    """The sums of a running bias. Never changed in place.

    Attributes:
      user_sum: float64 [users], the sum of the residuals of each user's ratings.
      user_count: int64 [users], the number of rated interactions so far.
      item_sum, item_count: the same for items.
    """

    user_sum: np.ndarray
    user_count: np.ndarray
    item_sum: np.ndarray
    item_count: np.ndarray

    @classmethod
    def zeros(cls, num_users: int, num_items: int) -> BiasState:
        """Return the state before the first interaction."""
        return cls(
            np.zeros(num_users), np.zeros(num_users, np.int64), np.zeros(num_items), np.zeros(num_items, np.int64)
        )


@dataclasses.dataclass(frozen=True)
class BiasTerms:
    """The biases and rating counts just before each interaction: float64 [n] and int64 [n]."""

    user_bias: np.ndarray
    item_bias: np.ndarray
    user_count: np.ndarray
    item_count: np.ndarray


@dataclasses.dataclass(frozen=True)
class RunningBias:
    """Mean + b_u + b_i with b_u = S_u / (n_u + lambda_u), b_i = S_i / (n_i + lambda_i), updated with every rating.

    An interaction with rating r is predicted first. Then, with e = r - mean and the biases before the interaction,
    S_u += e - b_i, S_i += e - b_u, and both counts grow by one.

    Attributes:
      mean: the mean of the train ratings.
      user_shrinkage, item_shrinkage: lambda_u and lambda_i.
      validation_mse: the prequential validation error by which the lambdas were chosen; NaN if validation has no
        ratings.
    """

    mean: float
    user_shrinkage: float
    item_shrinkage: float
    validation_mse: float = unrecorded(float("nan"))

    def run(
        self, user: np.ndarray, item: np.ndarray, rating: np.ndarray, state: BiasState
    ) -> tuple[BiasState, BiasTerms]:
        """Replay interactions in order.

        Args:
          user: int [n], the users.
          item: int [n], the items.
          rating: float [n], the ratings; NaN is missing and updates nothing.
          state: the state before the first interaction; it is not changed.

        Returns:
          The state after the last interaction, and the terms before each interaction.

        Raises:
          ValueError: a user or item is outside the tables of the state.
        """
        user, item, rating = np.asarray(user, np.int64), np.asarray(item, np.int64), np.asarray(rating, np.float64)
        _check(user, item, rating, len(state.user_sum), len(state.item_sum))
        after = BiasState(*(column.copy() for column in vars(state).values()))
        n, shrinkages = len(user), (self.user_shrinkage, self.item_shrinkage)
        terms = BiasTerms(np.empty(n), np.empty(n), np.empty(n, np.int64), np.empty(n, np.int64))
        _replay(user, item, rating, self.mean, shrinkages, tuple(vars(after).values()), tuple(vars(terms).values()))
        return after, terms

    def combine(self, terms: BiasTerms) -> np.ndarray:
        """Return the predictions from the terms before each interaction: float64 [n], not clipped."""
        return self.mean + terms.user_bias + terms.item_bias


@numba.njit(cache=True)
def _replay(  # pragma: no cover - compiled
    user: np.ndarray,
    item: np.ndarray,
    rating: np.ndarray,
    mean: float,
    shrinkages: tuple[float, float],
    state: tuple[np.ndarray, ...],
    terms: tuple[np.ndarray, ...],
) -> None:
    """Fill `terms` and update `state` in place: the fields of `BiasTerms` and `BiasState` in their order."""
    user_shrinkage, item_shrinkage = shrinkages
    user_sum, user_count, item_sum, item_count = state
    user_bias, item_bias, user_count_before, item_count_before = terms
    for k in range(len(user)):
        u, i = user[k], item[k]
        b_u = user_sum[u] / (user_count[u] + user_shrinkage) if user_count[u] else 0.0
        b_i = item_sum[i] / (item_count[i] + item_shrinkage) if item_count[i] else 0.0
        user_bias[k], item_bias[k] = b_u, b_i
        user_count_before[k], item_count_before[k] = user_count[u], item_count[i]
        if np.isnan(rating[k]):
            continue
        e = rating[k] - mean
        user_sum[u] += e - b_i
        item_sum[i] += e - b_u
        user_count[u] += 1
        item_count[i] += 1


def fit_static_bias(
    user: np.ndarray,
    item: np.ndarray,
    rating: np.ndarray,
    num_train: int,
    num_users: int,
    num_items: int,
    rating_range: tuple[float, float],
    grid: Sequence[float] = SHRINKAGES,
) -> StaticBias:
    """Fit mean + user bias + item bias on train, and choose the shrinkage on validation.

    The biases minimise squared error + lambda_u |b_u|^2 + lambda_i |b_i|^2 over train, by alternating closed forms.

    Args:
      user: int [n], the users of the train interactions and then of the validation interactions.
      item: int [n], their items.
      rating: float [n], their ratings; NaN is missing.
      num_train: the number of train interactions among the n.
      num_users: the number of user biases.
      num_items: the number of item biases.
      rating_range: predictions are clipped to it for the validation error.
      grid: the values to try for each lambda.

    Raises:
      UserError: no train interaction has a rating.
      ValueError: the arrays differ in length, or a user or item is out of range.
    """
    user, item, rating = np.asarray(user, np.int64), np.asarray(item, np.int64), np.asarray(rating, np.float64)
    _check(user, item, rating, num_users, num_items)
    mean = _train_mean(rating[:num_train])
    train = np.flatnonzero(~np.isnan(rating[:num_train]))
    u, i, e = user[train], item[train], rating[train] - mean
    user_count, item_count = np.bincount(u, minlength=num_users), np.bincount(i, minlength=num_items)

    def fit(user_shrinkage: float, item_shrinkage: float) -> StaticBias:
        b_u, b_i = np.zeros(num_users), np.zeros(num_items)
        for _ in range(SWEEPS):
            b_i = _biases(np.bincount(i, e - b_u[u], num_items), item_count, item_shrinkage)
            b_u = _biases(np.bincount(u, e - b_i[i], num_users), user_count, user_shrinkage)
        return StaticBias(mean, b_u, b_i, user_shrinkage, item_shrinkage)

    def judge(user_shrinkage: float, item_shrinkage: float) -> float:
        predicted = fit(user_shrinkage, item_shrinkage).predict(user[num_train:], item[num_train:])
        return _clipped_mse(predicted, rating[num_train:], rating_range)

    *shrinkages, mse = _choose(judge, grid, rating[num_train:])
    return dataclasses.replace(fit(*shrinkages), validation_mse=mse)


def fit_running_bias(
    user: np.ndarray,
    item: np.ndarray,
    rating: np.ndarray,
    num_train: int,
    num_users: int,
    num_items: int,
    rating_range: tuple[float, float],
    grid: Sequence[float] = SHRINKAGES,
) -> RunningBias:
    """Fit a running bias: the mean from train, the lambdas by the prequential error on validation.

    Arguments and errors are those of `fit_static_bias`; the interactions are in the order of the replay.
    """
    user, item, rating = np.asarray(user, np.int64), np.asarray(item, np.int64), np.asarray(rating, np.float64)
    _check(user, item, rating, num_users, num_items)
    mean, start = _train_mean(rating[:num_train]), BiasState.zeros(num_users, num_items)

    def judge(user_shrinkage: float, item_shrinkage: float) -> float:
        model = RunningBias(mean, user_shrinkage, item_shrinkage)
        predicted = model.combine(model.run(user, item, rating, start)[1])
        return _clipped_mse(predicted[num_train:], rating[num_train:], rating_range)

    return RunningBias(mean, *_choose(judge, grid, rating[num_train:]))


def _choose(
    judge: Callable[[float, float], float], grid: Sequence[float], validation: np.ndarray
) -> tuple[float, float, float]:
    """Return the pair of the grid with the lowest validation error (the first of equals), and that error."""
    if np.isnan(validation).all():
        return DEFAULT_SHRINKAGE, DEFAULT_SHRINKAGE, float("nan")
    mse, *best = min((judge(*pair), *pair) for pair in itertools.product(grid, grid))
    return best[0], best[1], mse


def _train_mean(rating: np.ndarray) -> float:
    rated = rating[~np.isnan(rating)]
    if not len(rated):
        raise UserError(f"none of the {len(rating)} train interactions has a rating: biases need some")
    return float(rated.mean())


def _biases(sums: np.ndarray, counts: np.ndarray, shrinkage: float) -> np.ndarray:
    return np.divide(sums, counts + shrinkage, out=np.zeros(len(sums)), where=counts > 0)


def _clipped_mse(predicted: np.ndarray, rating: np.ndarray, rating_range: tuple[float, float]) -> float:
    return float(np.nanmean((np.clip(predicted, *rating_range) - rating) ** 2))


def _check(user: np.ndarray, item: np.ndarray, rating: np.ndarray, num_users: int, num_items: int) -> None:
    if not user.shape == item.shape == rating.shape:
        raise ValueError(f"users {user.shape}, items {item.shape} and ratings {rating.shape} must agree")
    for name, column, size in (("user", user, num_users), ("item", item, num_items)):
        if len(column) and (column.min() < 0 or column.max() >= size):
            raise ValueError(
                f"{name} {column.max() if column.max() >= size else column.min()} is not in 0 .. {size - 1}"
            )

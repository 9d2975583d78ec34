"""What a finished run needs of its model to answer: scores from rows, and the rows of somebody never seen.

No data are needed, only what training left: parameters, everyone's rows, and a small record of the model's constants.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from drex_jax.common.errors import UserError
from drex_jax.config.defaults import RANKERS
from drex_jax.models.baselines.matrix_factorisation import product, products
from drex_jax.models.baselines.narre import NARRE
from drex_jax.models.drex.core import DReXOptions, Refiner
from drex_jax.models.materialize import materialize_scores
from drex_jax.models.protocol import Model, Params, States


class Scorer(Protocol):
    """Letters: n and m rows of size E.

    Attributes:
      rates: predicts ratings.
    """

    rates: bool

    def rank(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Ranking scores [n, m] of rows [n, E] and [m, E]."""
        ...

    def pairs(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Predicted ratings [n], not clipped, of rows [n, E] each; ranking scores where it predicts none."""
        ...

    def newcomers(self, params: Params, carry: States) -> tuple[jax.Array, jax.Array]:
        """The row [E] of a user, and that of an item, of whom nothing is known."""
        ...

    def directions(self, item: jax.Array) -> jax.Array:
        """What tells whether items with rows [I, E] are alike: vectors [I, D] to take cosines of."""
        ...


class Product:
    """Of the models that train on pairs: a score is the product of two rows.

    A newcomer has the mean row of all (our choice): its list is that of the average user.
    """

    rates = False

    def rank(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Products."""
        return user @ item.T

    def pairs(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Products."""
        return (user * item).sum(1)

    def newcomers(self, params: Params, carry: States) -> tuple[jax.Array, jax.Array]:
        """Means."""
        return carry.user.mean(0), carry.item.mean(0)

    def directions(self, item: jax.Array) -> jax.Array:
        """The rows."""
        return item


class Biased:
    """Of NARRE: the mean, and the product of two rows with their biases. Nothing speaks for or against a newcomer."""

    rates = True

    def __init__(self, mean: float):
        """`mean`: of the train ratings."""
        self._mean = mean

    def rank(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Predicted ratings less the mean."""
        return products(user, item)

    def pairs(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """Predicted ratings."""
        return self._mean + product(user, item)

    def newcomers(self, params: Params, carry: States) -> tuple[jax.Array, jax.Array]:
        """Zeros."""
        return jnp.zeros_like(carry.user[0]), jnp.zeros_like(carry.item[0])

    def directions(self, item: jax.Array) -> jax.Array:
        """The rows without their bias."""
        return item[:, :-1]


class Counts:
    """Of popularity: the number of interactions, whoever asks."""

    rates = False

    def rank(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """The items' numbers."""
        return user[:, :1] + item[:, 0][None, :]

    def pairs(self, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
        """The items' numbers."""
        return user[:, 0] + item[:, 0]

    def newcomers(self, params: Params, carry: States) -> tuple[jax.Array, jax.Array]:
        """No interactions."""
        return jnp.zeros_like(carry.user[0]), jnp.zeros_like(carry.item[0])

    def directions(self, item: jax.Array) -> jax.Array:
        """The numbers: all items are alike."""
        return item


def record(model: Model) -> dict[str, Any]:
    """The constants of a trained model that its scorer needs, as JSON can hold them."""
    if isinstance(model, NARRE):
        return {"mean": model.options.mean}
    return {"drex": model.options.constants()} if isinstance(model, Refiner) else {}


def scorer(name: str, constants: Mapping[str, Any]) -> Scorer:
    """The scorer of a model; the same object for the same record, so that its programs are compiled once a process.

    Args:
      name: the model's.
      constants: what `record` made of it.

    Raises:
      UserError: there is no such model, or its record is damaged.
    """
    return _scorer(name, json.dumps(constants, sort_keys=True))


@functools.lru_cache(maxsize=16)
def _scorer(name: str, constants: str) -> Scorer:
    if name == "drex":
        try:
            return Refiner(DReXOptions.of(json.loads(constants).get("drex")))
        except ValueError as error:
            raise UserError(f"the record of the run's model is damaged: {error}") from None
    if name == "narre":
        mean = json.loads(constants).get("mean")
        if not isinstance(mean, float):
            raise UserError(f"the record of the run's model is damaged: its mean rating is {mean!r}")
        return Biased(mean)
    if name in RANKERS:
        return Counts() if name == "popularity" else Product()
    raise UserError(f"no run of the model {name} can be used; it should be one of drex narre {' '.join(RANKERS)}")


@functools.partial(jax.jit, static_argnums=(0, 6))
def best(
    scorer: Scorer, params: Params, user: jax.Array, item: jax.Array, seen: jax.Array, excluded: jax.Array, k: int
) -> tuple[jax.Array, jax.Array]:
    """The k best items of users [b, E] among [I, E], int32 [b, k], and their scores; -inf for what may not be."""
    scores = jnp.where(excluded, -jnp.inf, scorer.rank(params, user, item))
    scores = scores.at[jnp.arange(len(user))[:, None], seen].set(-jnp.inf, mode="drop")
    best, found = lax.top_k(scores, k)
    return found, best


@functools.partial(jax.jit, static_argnums=0)
def scores(scorer: Scorer, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
    """As `Scorer.pairs`."""
    return scorer.pairs(params, user, item)


@functools.partial(jax.jit, static_argnums=0)
def score_and_rank(
    scorer: Scorer,
    params: Params,
    user: jax.Array,
    item: jax.Array,
    items: jax.Array,
    excluded: jax.Array,
    number: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The ranking score of one pair, and its place among all items: 1 where none is better. As `best` has them.

    Args:
      scorer: of the model.
      params: its parameters.
      user: the user's row [1, E].
      item: the item's row [1, E].
      items: everyone's rows [I, E].
      excluded: bool [I]: items that do not count.
      number: the item's; -1 of one that is not among them, whose place is where it would come.
    """
    scores = materialize_scores(scorer.rank(params, user, items), number + 1)[0]
    own = jnp.where(number < 0, scorer.rank(params, user, item)[0, 0], scores[number])
    before = (scores > own) | ((scores == own) & (jnp.arange(len(scores)) < number))  # equal ones in their order
    return own, 1 + (before & ~excluded).sum()


@functools.partial(jax.jit, static_argnums=2)
def most_similar(rows: jax.Array, number: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The k rows of [I, D] whose direction is most that of row `number`, itself left out: int32 [k], cosines [k].

    A row of zeros has no direction: the cosine is -inf.
    """
    unit = rows * lax.rsqrt((rows**2).sum(1, keepdims=True) + 1e-30)
    there = rows.any(1)
    cosine = jnp.where(there & there[number], unit @ unit[number], -jnp.inf).at[number].set(-jnp.inf)
    best, found = lax.top_k(cosine, k)
    return found, best


@jax.jit
def taken(rows: jax.Array, newcomer: jax.Array, numbers: jax.Array) -> jax.Array:
    """Rows [n, E] by number; a newcomer's for number -1."""
    return jnp.where((numbers >= 0)[:, None], rows[numbers], newcomer)


def users(rows: jax.Array, newcomer: jax.Array, numbers: np.ndarray) -> jax.Array:
    """As `taken`, and a newcomer's instead of zeros: by CRANE and LightGCN, of who has met new items alone."""
    found = taken(rows, newcomer, numbers)
    return jnp.where(found.any(1, keepdims=True), found, newcomer)

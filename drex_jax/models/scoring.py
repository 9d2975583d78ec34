"""Computations of a finished run on the rows of any model: best items, scores of pairs, ranks, similar items.

Models are static arguments, so equal models share compiled programs.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from drex_jax.models.materialize import materialize_scores
from drex_jax.models.protocol import Model, Params


@functools.partial(jax.jit, static_argnums=(0, 6))
def best(
    model: Model, params: Params, user: jax.Array, item: jax.Array, seen: jax.Array, excluded: jax.Array, k: int
) -> tuple[jax.Array, jax.Array]:
    """Return the k best items for users [b, E] among items [I, E], int32 [b, k], and their scores.

    The items in `seen`, int [b, m] (I is padding), and in `excluded`, bool [I], have the score -inf.
    """
    scores = jnp.where(excluded, -jnp.inf, model.rank(params, user, item))
    scores = scores.at[jnp.arange(len(user))[:, None], seen].set(-jnp.inf, mode="drop")
    best, found = lax.top_k(scores, k)
    return found, best


@functools.partial(jax.jit, static_argnums=0)
def scores(model: Model, params: Params, user: jax.Array, item: jax.Array) -> jax.Array:
    """Score rows with the compiled `Model.score`."""
    return model.score(params, user, item)


@functools.partial(jax.jit, static_argnums=0)
def score_and_rank(
    model: Model,
    params: Params,
    user: jax.Array,
    item: jax.Array,
    items: jax.Array,
    excluded: jax.Array,
    number: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Return the ranking score of one pair, and the item's rank among all items, from 1 on; ties as in `best`.

    Args:
      model: the model.
      params: the model's parameters.
      user: [1, E], the row of the user.
      item: [1, E], the row of the item.
      items: [I, E], the rows of all items.
      excluded: bool [I], items that do not count.
      number: the number of the item; -1 if it is not among `items`: its rank is then the one that it would have there.
    """
    scores = materialize_scores(model.rank(params, user, items), number + 1)[0]
    own = jnp.where(number < 0, model.rank(params, user, item)[0, 0], scores[number])
    before = (scores > own) | ((scores == own) & (jnp.arange(len(scores)) < number))  # ties by number
    return own, 1 + (before & ~excluded).sum()


@functools.partial(jax.jit, static_argnums=2)
def most_similar(rows: jax.Array, number: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Return the k rows of [I, D] with the greatest cosine to row `number`, without itself: int32 [k], cosines [k].

    A row of zeros has no direction: the cosine is -inf.
    """
    unit = rows * lax.rsqrt((rows**2).sum(1, keepdims=True) + 1e-30)
    there = rows.any(1)
    cosine = jnp.where(there & there[number], unit @ unit[number], -jnp.inf).at[number].set(-jnp.inf)
    best, found = lax.top_k(cosine, k)
    return found, best


@jax.jit
def gather_rows(rows: jax.Array, cold_start: jax.Array, numbers: jax.Array) -> jax.Array:
    """Return the rows [n, E] with the given numbers; number -1 gets the cold-start row."""
    return jnp.where((numbers >= 0)[:, None], rows[numbers], cold_start)


def gather_user_rows(rows: jax.Array, cold_start: jax.Array, numbers: np.ndarray) -> jax.Array:
    """Like `gather_rows`, but also replace all-zero rows (graph models, users with only new items)."""
    found = gather_rows(rows, cold_start, numbers)
    return jnp.where(found.any(1, keepdims=True), found, cold_start)

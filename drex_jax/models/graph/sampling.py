"""Random draws on the device: negatives that are not in a user's train items, and subsets of edges."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


class Seen(NamedTuple):
    """The distinct train items of each user, ascending, one user after the other.

    Attributes:
      begin: int32 [U + 1]; the items of user u are item[begin[u] : begin[u + 1]].
      item: int32 [N], items of all users.
    """

    begin: jax.Array
    item: jax.Array


def seen(user: np.ndarray, item: np.ndarray, num_users: int) -> Seen:
    """Return the train items of each user from train edges, int [E] each; duplicates count once. Not traced by JAX."""
    user, item = np.asarray(user), np.asarray(item)
    order = np.lexsort((item, user))
    user, item = user[order], item[order]
    new = np.ones(len(user), bool)
    new[1:] = (user[1:] != user[:-1]) | (item[1:] != item[:-1])
    begin = np.concatenate([[0], np.bincount(user[new], minlength=num_users).cumsum()])
    return Seen(jnp.asarray(begin, jnp.int32), jnp.asarray(item[new], jnp.int32))


def draw_negatives(key: jax.Array, seen: Seen, user: jax.Array, num_items: int) -> jax.Array:
    """Draw for each user one item uniformly from the items that are not in its train items, int32 [B].

    There is one draw without rejection: with a_0 < a_1 < ... the user's items, and r uniform over the number of other
    items, the result is r + #{j: a_j - j <= r}. For a user with every item, the draw is uniform over all items.

    Args:
      key: random key of this draw.
      seen: the train items of all users.
      user: int32 [B], the users.
      num_items: number of items, static.
    """
    begin, end = seen.begin[user], seen.begin[user + 1]
    end = jnp.where(end - begin < num_items, end, begin)  # a user with every item is treated like a user without items
    r = _uniform_below(key, num_items - (end - begin))
    item = jnp.append(seen.item, 0)  # read if the search ends behind the last item

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = (low + high) // 2
        found, searching = item[middle] - (middle - begin) <= r, low < high
        return jnp.where(searching & found, middle + 1, low), jnp.where(searching & ~found, middle, high)

    low, _ = lax.fori_loop(0, min(num_items, seen.item.shape[0]).bit_length(), halve, (begin, end))
    return r + (low - begin)


def _uniform_below(key: jax.Array, span: jax.Array) -> jax.Array:
    """Draw uniformly from 0 .. span-1, int32, for `span` > 0: the integer part of span times a 64-bit random fraction.

    Probabilities are off by at most 2^-64; a modulo of 32 bits would be off by 2^-32.
    """
    high, low = jax.random.bits(key, (2, *span.shape), jnp.uint32)
    span = span.astype(jnp.uint32)
    product = span * high
    carried = (product + _high_half(span, low)) < product
    return (_high_half(span, high) + carried).astype(jnp.int32)


def _high_half(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return the upper 32 bits of the 64-bit product of two uint32."""
    a_high, a_low, b_high, b_low = a >> 16, a & 0xFFFF, b >> 16, b & 0xFFFF
    middle = a_high * b_low + (a_low * b_low >> 16)
    return a_high * b_high + (middle >> 16) + ((a_low * b_high + (middle & 0xFFFF)) >> 16)


def keep_edges(key: jax.Array, weight: jax.Array, num_kept: int) -> jax.Array:
    """Draw `num_kept` of E edges without replacement, in proportion to their weights; returns int32, ascending.

    This equals drawing one edge after the other in proportion to the remaining weights (Efraimidis and Spirakis, 2006):
    the edges with the smallest exponential variates divided by weight are kept. Edges of weight 0 come last.

    Args:
      key: random key of this draw.
      weight: float32 [E], not negative.
      num_kept: number of edges to keep, at most E, static.

    Raises:
      ValueError: `num_kept` is above E.
    """
    num_edges = weight.shape[0]
    if num_kept > num_edges:
        raise ValueError(f"{num_kept} edges to keep of {num_edges}: at most all can be kept")
    weight = weight.astype(jnp.float32)
    time = jnp.where(weight > 0, _exponential(key, num_edges) / weight, jnp.inf)
    rank = lax.bitcast_convert_type(time, jnp.uint32)  # has the same order as floats that are not negative

    def settle(bit: jax.Array, last: jax.Array) -> jax.Array:
        """Find one bit of the num_kept-th smallest rank from the bits above it: 1 if fewer ranks would be below."""
        higher = last | (jnp.uint32(1) << (31 - bit).astype(jnp.uint32))
        return jnp.where((rank < higher).sum() < num_kept, higher, last)

    last = lax.fori_loop(0, 32, settle, jnp.uint32(0))
    before, equal = rank < last, rank == last
    spare = num_kept - before.sum()
    kept = before | (equal & (jnp.cumsum(equal) <= spare))
    place = jnp.where(kept, jnp.cumsum(kept) - 1, num_kept)
    number = jnp.arange(num_edges, dtype=jnp.int32)
    return jnp.zeros(num_kept, jnp.int32).at[place].set(number, mode="drop")


def _exponential(key: jax.Array, size: int) -> jax.Array:
    """Return positive, exponentially distributed values, [size]."""
    return -jnp.log(jax.random.uniform(key, (size,), minval=jnp.finfo(jnp.float32).tiny))

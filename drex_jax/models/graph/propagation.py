"""Products of a sparse matrix, and of its transpose, with a table of rows: how graphs of users and items propagate.

A matrix is held as lists of neighbours cut into chunks of `CHUNK`. Every row has a first chunk, in the row's place, and
rows with more neighbours have further ones. A product gathers the chunks' neighbours column by column, all in one
pass, and then adds the further chunks to their rows. The backward product is the same over the transpose's lists, so
that nothing is ever scattered by edge.

Letters: E edges, n nodes (rows) and m columns of a matrix, k neighbours a node, S further chunks, C places in a chunk,
D features.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

CHUNK = 8


class Lists(NamedTuple):
    """The rows' neighbours in chunks. Neighbour m is nobody's number and stands for a row of zeros: an empty place.

    Attributes:
      first: int32 [C, n], the first chunk of each row.
      rest: int32 [C, S], the further ones, by row.
      row: int32 [S], ascending, which row each further chunk belongs to; empty ones are at the end.
      first_weight: float32 [C, n]; None where each is 1.
      rest_weight: float32 [C, S]; None where each is 1.
    """

    first: jax.Array
    rest: jax.Array
    row: jax.Array
    first_weight: jax.Array | None = None
    rest_weight: jax.Array | None = None


class Graph(NamedTuple):
    """A sparse matrix A [n, m] as `propagate` reads it: A = diag(scale) L diag(scale), L given by lists.

    Attributes:
      lists: of L.
      transposed: of L's transpose; None where L is symmetric.
      scale: float32 [n], of a square matrix; None where each is 1.
    """

    lists: Lists
    transposed: Lists | None
    scale: jax.Array | None


def count_chunks(user: np.ndarray, item: np.ndarray, num_users: int, num_items: int) -> int:
    """Further chunks that the bipartite graph of these edges needs, and so at most those of any subset of them.

    Args:
      user: int [E], on the host.
      item: int [E], on the host.
      num_users: more than any user's number.
      num_items: more than any item's number.
    """
    return _count_further(user, num_users) + _count_further(item, num_items)


def symmetric(
    user: jax.typing.ArrayLike,
    item: jax.typing.ArrayLike,
    num_users: int,
    num_items: int,
    kept: jax.typing.ArrayLike | None = None,
    num_chunks: int | None = None,
) -> Graph:
    """D^-1/2 A D^-1/2 of the bipartite graph over num_users + num_items nodes; item i is node num_users + i.

    Can be traced: sizes depend on the arguments' shapes and on num_chunks alone. An edge that is given twice counts
    twice, also in the degrees. Nodes without an edge have rows of zeros. Neighbours are added in the order of the
    edges.

    Args:
      user: int32 [E].
      item: int32 [E].
      num_users: more than any user's number.
      num_items: more than any item's number.
      kept: bool [E]; the graph, degrees included, has only these edges. None: all.
      num_chunks: `count_chunks` of these edges or of a superset, for smaller lists (entries that did not fit would be
        lost); None: enough for any graph of E edges.
    """
    n = num_users + num_items
    user, item = jnp.asarray(user, jnp.int32), jnp.asarray(item, jnp.int32)
    of_user, of_item = user, item
    if kept is not None:
        of_user, of_item = (jnp.where(jnp.asarray(kept, bool), user, num_users), jnp.where(kept, item, num_items))
    by_user, user_begin, user_degree = _by_row(of_user, num_users)
    by_item, item_begin, item_degree = _by_row(of_item, num_items)
    neighbour = jnp.concatenate([num_users + item[by_user], user[by_item]])
    begin = jnp.concatenate([user_begin, user.shape[0] + item_begin])
    degree = jnp.concatenate([user_degree, item_degree])
    enough = neighbour.shape[0] // CHUNK
    num_chunks = enough if num_chunks is None else min(num_chunks, enough)
    lists = _lists(begin, degree, jnp.append(neighbour, n), None, num_chunks)
    scale = jnp.where(degree > 0, lax.rsqrt(jnp.maximum(degree, 1).astype(jnp.float32)), 0.0)
    return Graph(lists, None, scale)


def directed(neighbour: jax.typing.ArrayLike, weight: jax.typing.ArrayLike) -> Graph:
    """The n x n matrix whose row r holds weight[r, j] at neighbour[r, j], for each j; repeated ones add up.

    Can be traced: sizes depend on the arguments' shapes alone.

    Args:
      neighbour: int32 [n, k], in 0 .. n-1 wherever the weight is not 0.
      weight: float32 [n, k]; 0: absent.
    """
    neighbour, weight = jnp.asarray(neighbour, jnp.int32), jnp.asarray(weight, jnp.float32)
    n, k = neighbour.shape
    neighbour = jnp.where(weight != 0, neighbour, n)
    nothing = jnp.zeros((CHUNK, 0), jnp.int32)
    lists = Lists(neighbour.T, nothing, nothing[0], weight.T, nothing.astype(jnp.float32))
    order, begin, degree = _by_row(neighbour.reshape(-1), n)
    transposed = _lists(
        begin, degree, jnp.append(order // k, n), jnp.append(weight.reshape(-1)[order], 0.0), n * k // CHUNK
    )
    return Graph(lists, transposed, None)


def incidence(user: np.ndarray, item: np.ndarray, num_users: int, num_items: int) -> Graph:
    """The num_users x num_items matrix that holds 1 for each edge: its product sums, for each user, the rows of items.

    On the host. Neighbours are added in the order of the edges.

    Args:
      user: int [E].
      item: int [E].
      num_users: more than any user's number.
      num_items: more than any item's number.
    """

    @jax.jit
    def build(user: jax.Array, item: jax.Array) -> tuple[Lists, Lists]:
        by_user, user_begin, user_degree = _by_row(user, num_users)
        by_item, item_begin, item_degree = _by_row(item, num_items)
        return (
            _lists(user_begin, user_degree, jnp.append(item[by_user], num_items), None, of_users),
            _lists(item_begin, item_degree, jnp.append(user[by_item], num_users), None, of_items),
        )

    of_users, of_items = _count_further(user, num_users), _count_further(item, num_items)
    lists, transposed = build(jnp.asarray(user, jnp.int32), jnp.asarray(item, jnp.int32))
    return Graph(lists, transposed, None)


@jax.custom_vjp
def propagate(graph: Graph, x: jax.Array) -> jax.Array:
    """A x, float32 [n, D], of x [m, D]. Differentiable in x (not in the graph), by a product with the transpose."""
    return _product(graph.lists, graph.scale, x)


def _forward(graph: Graph, x: jax.Array) -> tuple[jax.Array, tuple[Graph, jax.Array]]:
    return propagate(graph, x), (graph, jnp.zeros(0, x.dtype))


def _backward(residuals: tuple[Graph, jax.Array], cotangent: jax.Array) -> tuple[None, jax.Array]:
    graph, like = residuals
    lists = graph.lists if graph.transposed is None else graph.transposed
    return None, _product(lists, graph.scale, cotangent).astype(like.dtype)


propagate.defvjp(_forward, _backward)


def _product(lists: Lists, scale: jax.Array | None, x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    if scale is not None:
        x = x * scale[:, None]
    x = jnp.pad(x, ((0, 1), (0, 0)))
    first = _chunk_sums(x, lists.first, lists.first_weight)
    rest = _chunk_sums(x, lists.rest, lists.rest_weight)
    if scale is not None:
        first, rest = first * scale[:, None], rest * scale[lists.row][:, None]
    return first.at[lists.row].add(rest, mode="promise_in_bounds", indices_are_sorted=True)


def _chunk_sums(x: jax.Array, neighbour: jax.Array, weight: jax.Array | None) -> jax.Array:
    """The sum of each chunk's rows, [chunks, D]; written so that XLA makes one loop of it, without [C, chunks, D]."""
    total = jnp.zeros((neighbour.shape[1], x.shape[1]), jnp.float32)
    for j in range(neighbour.shape[0]):
        part = x.at[neighbour[j]].get(mode="promise_in_bounds")
        total = total + (part if weight is None else weight[j, :, None] * part)
    return total


def _count_further(row: np.ndarray, n: int) -> int:
    """Chunks beyond the first of each of n rows, of edges in these rows."""
    return int((np.maximum(np.bincount(row, minlength=n) - 1, 0) // CHUNK).sum())


def _by_row(row: jax.Array, n: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The entries' order by row, [N], and where in it each of the n rows begins, and its length; row n is nobody."""
    degree = jnp.zeros(n + 1, jnp.int32).at[row].add(1)[:n]
    return _stable_order(row, n), jnp.cumsum(degree) - degree, degree


def _stable_order(key: jax.Array, most: int) -> jax.Array:
    """A stable argsort of keys from 0 to `most`.

    By digits, each sorted as one uint32 together with the position: on CPU, XLA sorts one array several times as fast
    as a pair of them.
    """
    position = jnp.arange(key.shape[0], dtype=jnp.uint32)
    position_bits = max(key.shape[0] - 1, 1).bit_length()
    order = position.astype(jnp.int32)
    for shift in range(0, max(most, 1).bit_length(), 32 - position_bits):
        digit = (key[order] >> shift).astype(jnp.uint32) << position_bits  # higher digits are shifted out
        order = order[lax.sort(digit | position) & ((1 << position_bits) - 1)]
    return order


def _lists(
    begin: jax.Array, degree: jax.Array, neighbour: jax.Array, weight: jax.Array | None, num_chunks: int
) -> Lists:
    """Lists with room for `num_chunks` further chunks; row r has entries begin[r] .. begin[r] + degree[r] - 1.

    The last entry is that of an empty place.
    """
    n, empty = begin.shape[0], neighbour.shape[0] - 1
    place = jnp.arange(CHUNK, dtype=jnp.int32)[:, None]
    first = jnp.where(place < degree, begin + place, empty)
    further = jnp.maximum(degree - 1, 0) // CHUNK
    end = jnp.cumsum(further)
    chunk = jnp.arange(num_chunks, dtype=jnp.int32)
    row = jnp.minimum(jnp.searchsorted(end, chunk, side="right"), n - 1).astype(jnp.int32)
    place += CHUNK * (1 + chunk - (end - further)[row])
    rest = jnp.where(place < degree[row], begin[row] + place, empty)
    if weight is None:
        return Lists(neighbour[first], neighbour[rest], row)
    return Lists(neighbour[first], neighbour[rest], row, weight[first], weight[rest])

"""Products of a sparse matrix and of its transpose with a dense table: the propagation in graphs of users and items.

A matrix is stored as lists of neighbours, cut into chunks of `CHUNK`. Every row has a first chunk, stored at the row's
index; rows with more neighbours have further chunks. A product gathers the neighbours of all chunks column by column,
and then adds the further chunks to their rows. The backward product does the same with the lists of the transpose, so
nothing is scattered edge by edge.

Letters: E edges, n nodes (rows) and m columns of a matrix, k neighbours of a node, S further chunks, C entries of a
chunk, D features.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

CHUNK = 8


class Lists(NamedTuple):
    """The neighbours of each row in chunks. Index `m` is padding; it gathers a zero row.

    Attributes:
      first: int32 [C, n], the first chunk of each row.
      rest: int32 [C, S], the further chunks, sorted by row.
      row: int32 [S], ascending, the row of each further chunk; empty chunks are at the end.
      first_weight: float32 [C, n], weights; None if all are 1.
      rest_weight: float32 [C, S], weights; None if all are 1.
    """

    first: jax.Array
    rest: jax.Array
    row: jax.Array
    first_weight: jax.Array | None = None
    rest_weight: jax.Array | None = None


class Graph(NamedTuple):
    """A sparse matrix A [n, m] as `propagate` reads it: A = diag(scale) L diag(scale), L given by lists.

    Attributes:
      lists: the lists of L.
      transposed: the lists of the transpose of L; None if L is symmetric.
      scale: float32 [n], for a square matrix; None if all values are 1.
    """

    lists: Lists
    transposed: Lists | None
    scale: jax.Array | None


def count_chunks(user: np.ndarray, item: np.ndarray, num_users: int, num_items: int) -> int:
    """Return the number of further chunks that the bipartite graph of these edges, or of any subset, needs at most.

    Args:
      user: int [E], a NumPy array.
      item: int [E], a NumPy array.
      num_users: number of users.
      num_items: number of items.
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
    """Return D^-1/2 A D^-1/2 of the bipartite graph over num_users + num_items nodes; item i is node num_users + i.

    Can be traced by JAX: sizes depend only on the shapes of the arguments and on `num_chunks`. A repeated edge counts
    twice, also in the degrees. Nodes without an edge have rows of zeros. Neighbours are added in the order of edges.

    Args:
      user: int32 [E], the user of each edge.
      item: int32 [E], the item of each edge.
      num_users: number of users.
      num_items: number of items.
      kept: bool [E], the edges of the graph and of its degrees; None: all.
      num_chunks: `count_chunks` of these edges or of a superset, for smaller lists (with fewer, entries are lost);
        None: enough for any graph of E edges.
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
    """Return the n x n matrix with weight[r, j] at row r and column neighbour[r, j]; repeated entries add up.

    Can be traced by JAX: sizes depend only on the shapes of the arguments.

    Args:
      neighbour: int32 [n, k], in 0 .. n-1 wherever the weight is not 0.
      weight: float32 [n, k]; 0 means no entry.
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
    """Return the num_users x num_items matrix with 1 for each edge; its product sums the rows of each user's items.

    Not traced by JAX. Neighbours are added in the order of the edges.

    Args:
      user: int [E], the user of each edge.
      item: int [E], the item of each edge.
      num_users: number of users.
      num_items: number of items.
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
    """Return A x, float32 [n, D], for x [m, D]. Differentiable in x, but not in the graph."""
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
    """Sum the rows of each chunk: [chunks, D]. XLA compiles this into one loop, without an array [C, chunks, D]."""
    total = jnp.zeros((neighbour.shape[1], x.shape[1]), jnp.float32)
    for j in range(neighbour.shape[0]):
        part = x.at[neighbour[j]].get(mode="promise_in_bounds")
        total = total + (part if weight is None else weight[j, :, None] * part)
    return total


def _count_further(row: np.ndarray, n: int) -> int:
    """Return the number of chunks beyond the first of each row, for edges in n rows."""
    return int((np.maximum(np.bincount(row, minlength=n) - 1, 0) // CHUNK).sum())


def _by_row(row: jax.Array, n: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the order of entries by row, [N], and the begin and length of each of n rows; row n is padding."""
    degree = jnp.zeros(n + 1, jnp.int32).at[row].add(1)[:n]
    return _stable_order(row, n), jnp.cumsum(degree) - degree, degree


def _stable_order(key: jax.Array, most: int) -> jax.Array:
    """Return a stable argsort of keys from 0 to `most`.

    Keys are sorted digit by digit, each digit packed with the position into one uint32: on CPU, XLA sorts one array
    several times as fast as a pair of arrays.
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
    """Return lists with room for `num_chunks` further chunks; row r has entries begin[r] .. begin[r] + degree[r] - 1.

    The last entry of `neighbour` is padding.
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

"""Graph products, compared with the dense matrix, its transpose and its automatic derivative."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from drex_jax.models.graph.propagation import CHUNK, count_chunks, directed, incidence, propagate, symmetric

USERS, ITEMS, EDGES, SIZE = 23, 14, 160, 5
NODES = USERS + ITEMS
build = jax.jit(symmetric, static_argnames=("num_users", "num_items", "num_chunks"))
build_directed = jax.jit(directed)
product = jax.jit(propagate)


@jax.jit
def pulled_back(graph, x, cotangent):
    return jax.vjp(functools.partial(propagate, graph), x)[1](cotangent)[0]


def dense_symmetric(user, item, num_users, num_items):
    matrix = np.zeros((num_users + num_items,) * 2)
    for u, i in zip(user, item, strict=True):
        matrix[u, num_users + i] += 1
        matrix[num_users + i, u] += 1
    degree = matrix.sum(1)
    scale = np.array([d**-0.5 if d else 0.0 for d in degree])
    return scale[:, None] * matrix * scale


def dense_directed(neighbour, weight):
    matrix = np.zeros((len(neighbour),) * 2)
    for r, (columns, values) in enumerate(zip(neighbour, weight, strict=True)):
        for c, w in zip(columns, values, strict=True):
            if w:
                matrix[r, c] += w
    return matrix


def edges(seed):
    """Return edges with duplicates, a hub on both sides, and users and items without an edge (also the last ones)."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, USERS - 3, EDGES), rng.integers(2, ITEMS - 1, EDGES)
    user[:50], item[50:90] = 4, 3
    order = rng.permutation(EDGES)
    return user[order].astype(np.int32), item[order].astype(np.int32)


def table(seed, nodes=NODES, size=SIZE):
    return np.random.default_rng(100 + seed).normal(size=(nodes, size)).astype(np.float32)


def agree(actual, matrix, x):
    """Assert equality up to the rounding of float32 sums: a few units in the last place of the sum of magnitudes."""
    bound = 16 * np.finfo(np.float32).eps * (np.abs(matrix) @ np.abs(x)) + 1e-30
    error = np.abs(np.asarray(actual, np.float64) - matrix @ x.astype(np.float64))
    assert (error <= bound).all(), (error / bound).max()


@pytest.mark.parametrize("seed", range(4))
def test_symmetric_is_the_dense_product_both_ways(seed):
    user, item = edges(seed)
    matrix, x = dense_symmetric(user, item, USERS, ITEMS), table(seed)
    for chunks in (None, 40):  # 40 is more than any of these graphs needs
        assert count_chunks(user, item, USERS, ITEMS) <= min(40, 2 * EDGES // CHUNK)
        graph = build(user, item, USERS, ITEMS, num_chunks=chunks)
        agree(product(graph, x), matrix, x)
        agree(pulled_back(graph, x, x[::-1]), matrix.T, x[::-1])


def test_exact_number_of_chunks_is_enough_and_one_less_is_not():
    user, item = edges(0)
    matrix, x = dense_symmetric(user, item, USERS, ITEMS), table(0)
    exact = count_chunks(user, item, USERS, ITEMS)
    agree(product(build(user, item, USERS, ITEMS, num_chunks=exact), x), matrix, x)
    short = product(build(user, item, USERS, ITEMS, num_chunks=exact - 1), x)
    assert np.abs(short - matrix @ x).max() > 1e-3


@pytest.mark.parametrize("degree", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1])
def test_degrees_about_the_size_of_a_chunk(degree):
    most = 2 * CHUNK + 1
    user, item, kept = np.zeros(most, np.int32), np.arange(most, dtype=np.int32), np.arange(most) < degree
    matrix, x = dense_symmetric(user[kept], item[kept], 1, most), table(0, most + 1)
    assert count_chunks(user[kept], item[kept], 1, most) == (degree - 1) // CHUNK
    agree(product(build(user, item, 1, most, kept=kept, num_chunks=2), x), matrix, x)


def test_kept_edges_are_the_graph_of_these_alone():
    user, item = edges(1)
    x = table(1)
    for seed, share in ((0, 0.5), (1, 0.0), (2, 1.0)):
        kept = np.random.default_rng(seed).random(EDGES) < share
        matrix = dense_symmetric(user[kept], item[kept], USERS, ITEMS)
        agree(product(build(user, item, USERS, ITEMS, kept=kept), x), matrix, x)


@pytest.mark.parametrize("seed", range(4))
def test_directed_is_the_dense_product_both_ways(seed):
    rng = np.random.default_rng(seed)
    neighbour = rng.integers(0, NODES, (NODES, 6)).astype(np.int32)
    neighbour[:, 0] = 7  # in many lists: a hub of the transpose
    weight = (rng.normal(size=(NODES, 6)) * (rng.random((NODES, 6)) < 0.7)).astype(np.float32)
    weight[3], weight[neighbour == 5] = 0, 0
    neighbour[3] = NODES + 1000  # weight 0, so the edge is absent
    matrix, x = dense_directed(neighbour, weight), table(seed)
    graph = build_directed(neighbour, weight)
    agree(product(graph, x), matrix, x)
    agree(pulled_back(graph, x, x[::-1]), matrix.T, x[::-1])


@pytest.mark.parametrize("seed", range(4))
def test_incidence_is_the_dense_product_both_ways(seed):
    user, item = edges(seed)
    matrix = np.zeros((USERS, ITEMS))
    np.add.at(matrix, (user, item), 1)
    x, cotangent = table(seed, ITEMS), table(seed, USERS)
    graph = incidence(user, item, USERS, ITEMS)
    agree(product(graph, x), matrix, x)
    agree(pulled_back(graph, x, cotangent), matrix.T, cotangent)


def test_sizes_of_one_and_nothing():
    none = np.zeros(0, np.int32)
    x = np.ones((2, 3), np.float32)
    assert not np.asarray(product(build(none, none, 1, 1), x)).any()
    assert not np.asarray(product(build(none, none, 1, 0), x[:1])).any()
    assert not np.asarray(product(incidence(none, none, 1, 2), x)).any()
    one = np.zeros(1, np.int32)
    np.testing.assert_allclose(product(build(one, one, 1, 1), x * [[2], [3]]), x * [[3], [2]])
    loop = build_directed(np.zeros((1, 2), np.int32), np.array([[0.5, 2.0]]))
    np.testing.assert_allclose(product(loop, x[:1]), 2.5 * x[:1])
    np.testing.assert_allclose(pulled_back(loop, x[:1], x[:1]), 2.5 * x[:1])


def test_gradient_is_that_of_the_dense_product():
    user, item = edges(2)
    graph, matrix = build(user, item, USERS, ITEMS), jnp.asarray(dense_symmetric(user, item, USERS, ITEMS), jnp.float32)

    def loss(multiply, x):
        return (jnp.tanh(multiply(multiply(x))) ** 2).sum()

    expected = jax.grad(functools.partial(loss, lambda x: matrix @ x))(table(2))
    assert np.abs(expected).max() > 0.01
    gradient = jax.grad(jax.jit(functools.partial(loss, functools.partial(propagate, graph))))
    np.testing.assert_allclose(gradient(table(2)), expected, atol=2e-6)
    np.testing.assert_allclose(jax.jit(gradient)(table(2)), expected, atol=2e-6)


def test_no_scatter_by_edge_forward_or_backward():
    rng = np.random.default_rng(0)
    graph = build(*edges(0), USERS, ITEMS)
    other = build_directed(rng.integers(0, NODES, (NODES, 4)), rng.random((NODES, 4)))
    for each, scatters in ((graph, 2), (other, 1)):  # additional chunks; k neighbours need none forward
        program = jax.make_jaxpr(jax.grad(lambda x, each=each: (propagate(each, x) ** 2).sum()))(table(0))
        assert str(program).count("scatter-add[") == scatters


def test_graph_is_constant_to_gradients():
    rng = np.random.default_rng(0)
    neighbour, x = rng.integers(0, 9, (9, 3)), table(0, 9)
    gradient = jax.jit(jax.grad(lambda w: (propagate(directed(neighbour, w), x) ** 2).sum()))(jnp.ones((9, 3)))
    assert not np.asarray(gradient).any()


def test_permuting_nodes_permutes_results():
    user, item = edges(3)
    rng = np.random.default_rng(0)
    new_user, new_item = rng.permutation(USERS).astype(np.int32), rng.permutation(ITEMS).astype(np.int32)
    place = np.concatenate([new_user, USERS + new_item])
    x = table(3)
    moved = np.empty_like(x)
    moved[place] = x
    plain = product(build(user, item, USERS, ITEMS), x)
    permuted = product(build(new_user[user], new_item[item], USERS, ITEMS), moved)
    np.testing.assert_array_equal(permuted[place], plain)  # bitwise, because sums follow the order of the edges


def test_linear():
    graph = build(*edges(0), USERS, ITEMS)
    x, y = table(0), table(1)
    np.testing.assert_allclose(
        product(graph, 2 * x - 3 * y), 2 * product(graph, x) - 3 * product(graph, y), rtol=1e-5, atol=1e-5
    )


def test_padding_is_not_touched_by_what_is_not_finite():
    user, item = edges(0)
    x = table(0)
    x[USERS + ITEMS - 1] = np.inf  # an item without an edge
    assert not np.isin(ITEMS - 1, item)
    result = np.asarray(product(build(user, item, USERS, ITEMS), x))
    assert np.isfinite(result[: NODES - 1]).all()


def test_inside_scan_and_under_vmap():
    user, item = edges(1)
    graph = build(user, item, USERS, ITEMS)
    x = table(1)

    @jax.jit
    def descend(graph, x):
        def step(x, _):
            value, gradient = jax.value_and_grad(lambda x: (propagate(graph, x) ** 2).sum())(x)
            return x - 0.1 * gradient, value

        return lax.scan(step, x, None, length=4)

    matrix, expected = dense_symmetric(user, item, USERS, ITEMS), x.astype(np.float64)
    for _ in range(4):
        expected = expected - 0.2 * matrix.T @ matrix @ expected
    np.testing.assert_allclose(descend(graph, x)[0], expected, atol=1e-5)

    several = np.stack([table(k) for k in range(3)])
    each = np.stack([product(graph, x) for x in several])
    np.testing.assert_allclose(jax.jit(jax.vmap(propagate, (None, 0)))(graph, several), each, atol=1e-6)
    kept = np.random.default_rng(0).random((3, EDGES)) < 0.5

    @jax.jit
    @jax.vmap
    def rebuilt(kept, x):
        return jax.grad(lambda x: (propagate(symmetric(user, item, USERS, ITEMS, kept=kept), x) ** 2).sum())(x)

    for k, gradient in enumerate(rebuilt(kept, several)):
        matrix = dense_symmetric(user[kept[k]], item[kept[k]], USERS, ITEMS)
        np.testing.assert_allclose(gradient, 2 * matrix.T @ matrix @ several[k], atol=1e-5)


def test_half_precision_in_float32_out():
    graph = build(*edges(0), USERS, ITEMS)
    x = jnp.asarray(table(0), jnp.bfloat16)
    assert product(graph, x).dtype == jnp.float32
    np.testing.assert_array_equal(product(graph, x), product(graph, x.astype(jnp.float32)))
    assert pulled_back(graph, x, product(graph, x)).dtype == jnp.bfloat16


def test_many_edges_take_several_digits_to_sort():
    rng = np.random.default_rng(0)
    users, items, count = 70_000, 30, 2**17 + 5  # 18 bits of position and 17 of user: more than 32 bits
    user, item = rng.integers(0, users, count).astype(np.int32), rng.integers(0, items, count).astype(np.int32)
    graph = build(user, item, users, items)
    x = table(0, users + items, 2)
    scale = np.zeros(users + items)
    degree = np.bincount(np.concatenate([user, users + item]), minlength=users + items)
    scale[degree > 0] = degree[degree > 0] ** -0.5
    expected = np.zeros_like(x, np.float64)
    np.add.at(expected, user, scale[users + item, None] * x[users + item])
    np.add.at(expected, users + item, scale[user, None] * x[user])
    np.testing.assert_allclose(product(graph, x), scale[:, None] * expected, atol=2e-5)

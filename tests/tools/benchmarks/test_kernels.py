"""Every JAX implementation computes the states, the loss and the update of one-by-one replay."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tools.benchmarks import kernels, peer, streams, table

D, F = 4, 3
INTERACTIONS = 20


def make_case(interactions: int) -> table.Case:
    return table.Case(streams.synthetic(interactions, users=30, items=7), state_size=D, feature_size=F, repeats=1)


def cell(x: jax.Array, own: jax.Array, partner: jax.Array, weights: kernels.CellParams) -> jax.Array:
    """Return the new state of one side by the equations; x [3D], states [D]."""
    x, u, w = (jnp.split(values, 3) for values in (x, own @ weights.own, partner @ weights.partner))
    r, z = (jax.nn.sigmoid(x[gate] + u[gate] + w[gate]) for gate in (0, 1))
    return z * own + (1 - z) * jnp.tanh(x[2] + w[2] + r * u[2])


def replay(params: kernels.Params, case: table.Case, table: jax.Array, met: np.ndarray, part: slice):
    """Run `part` one interaction at a time. Return the table afterwards and the states before each [n, 2, D]."""
    stream = case.stream
    start = jnp.repeat(params.start, np.array([stream.num_users, stream.num_items]), axis=0)
    table = jnp.where(met[:, None], table, start)

    def body(table: jax.Array, event: tuple):
        user, item, x = event
        gates = (x @ params.features + params.bias).reshape(3, 2, D)  # gate, side
        u, i = table[user], table[item + stream.num_users]
        table = table.at[user].set(cell(gates[:, 0].reshape(-1), u, i, params.user))
        table = table.at[item + stream.num_users].set(cell(gates[:, 1].reshape(-1), i, u, params.item))
        return table, jnp.stack([u, i])

    return jax.lax.scan(body, table, (stream.user[part], stream.item[part], case.features()[part]))


def epoch(case: table.Case, count: int) -> tuple[float, kernels.Params, jax.Array]:
    """Train an epoch without a schedule. Return the sum of losses, the parameters and the table."""
    stream = case.stream
    params = kernels.initial(D, F)
    optimizer = optax.adam(peer.LEARNING_RATE)
    moments = optimizer.init(params)
    table = jnp.zeros((stream.num_users + stream.num_items, D))
    met = np.zeros(len(table), bool)
    total = 0.0
    begins = np.linspace(0, len(stream), count + 1).round().astype(int)
    for begin, end in itertools.pairwise(begins):
        part = slice(begin, end)
        touched = np.unique([stream.user[part], stream.item[part] + stream.num_users])

        def loss(params, table=table, met=met, part=part, touched=touched):
            after, before = replay(params, case, table, met, part)
            return jnp.mean(before**2) + jnp.mean(after[touched] ** 2), after

        (value, after), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        updates, moments = optimizer.update(gradients, moments)
        params = jax.tree.map(jnp.add, params, updates)
        met = met | np.isin(np.arange(len(table)), touched)
        table = jnp.where(met[:, None], after, 0)
        total += float(value)
    return total, params, table


@pytest.fixture(scope="module")
def expected() -> tuple[float, kernels.Params, jax.Array]:
    return epoch(make_case(INTERACTIONS), 2)


@pytest.mark.parametrize("name", kernels.WAYS)
def test_two_windows_are_run_as_one_by_one_replay_runs_them(name: str, expected: tuple) -> None:
    case = make_case(INTERACTIONS)
    compiled = kernels.Compiled(kernels.Program(name, case.stream, case, 3, "float32", 2))
    none_met = np.zeros(case.stream.num_users + case.stream.num_items, bool)
    _, before = replay(kernels.initial(D, F), case, jnp.zeros((len(none_met), D)), none_met, slice(None))
    np.testing.assert_allclose(compiled.forward(), before[INTERACTIONS // 2 :], atol=2e-6)
    compiled.train()
    loss, params, after = expected
    assert compiled.loss == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(compiled.table, after, atol=2e-5)
    for got, want in zip(jax.tree.leaves(compiled.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5)


def test_gradients_equal_those_of_one_by_one_replay() -> None:
    case = make_case(INTERACTIONS)
    touched = np.unique([case.stream.user, case.stream.item + case.stream.num_users])
    none_met = np.zeros(case.stream.num_users + case.stream.num_items, bool)
    zeros = jnp.zeros((len(none_met), D))

    def loss(params: kernels.Params) -> jax.Array:
        after, before = replay(params, case, zeros, none_met, slice(None))
        return jnp.mean(before**2) + jnp.mean(after[touched] ** 2)

    want = jax.jit(jax.grad(loss))(kernels.initial(D, F))
    for name in kernels.WAYS:
        program = kernels.Program(name, case.stream, case, 3, "float32", 1)
        params, _, table = program.beginning()
        got = jax.jit(jax.grad(lambda *args, program=program: program.loss(*args)[0]))(
            params, table, program.windows[0]
        )
        for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6, err_msg=name)


def test_the_loss_is_the_peers() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: no peer to compare with")
    case = make_case(150)
    run = peer.Peer("t_batch_compact", case.stream, case)
    params = run.params(peer.initial(D, F))
    theirs = run.train(params, torch.optim.SGD(params.values(), lr=0.0))
    compiled = kernels.Compiled(kernels.Program("critical_path", case.stream, case, 8, "float32", 1))
    compiled.train()
    assert compiled.loss == pytest.approx(theirs, rel=1e-5)


def test_rows_say_what_was_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "SEQUENTIAL_SAMPLE", 20)
    case = dataclasses.replace(make_case(60), repeats=1)
    found = kernels.rows(case, ["sequential", "critical_path"], [6, 2], ["float32"], 2)
    assert [(row.implementation, row.interactions, row.width, row.bptt_windows) for row in found] == [
        ("sequential", 20, 1, 1),
        ("critical_path", 60, 2, 2),
        ("critical_path", 60, 6, 2),
    ]
    for row in found:
        assert row.exact
        assert row.steps >= row.bound
        assert row.fill == row.interactions / (row.steps * row.width)
        assert row.forward.median > 0 < row.train.median
        assert row.compile_seconds > 0 <= row.temp_bytes
    assert found[0].steps == 20
    (rounded,) = kernels.rows(case, ["t_batch"], [6], ["bfloat16"], 2)
    assert (rounded.dtype, rounded.exact) == ("bfloat16", False)
    assert (rounded.depth, rounded.steps >= found[-1].steps) == (found[-1].depth, True)

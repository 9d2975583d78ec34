"""PyTorch computes the states and the gradients of the equations."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drex_jax.common.errors import UserError
from tools.benchmarks import peer, streams, table

NAMES = ("sequential", "t_batch_table", "t_batch_compact")


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed: no peer to check")


def make_case(interactions: int) -> table.Case:
    return table.Case(streams.synthetic(interactions, users=9, items=6), state_size=4, feature_size=3, repeats=1)


def cell(x: jax.Array, own: jax.Array, partner: jax.Array, of_own: jax.Array, of_partner: jax.Array) -> jax.Array:
    """Return the new state of one side by the equations in `recurrence`; arrays are [D], weights [D, 3D]."""
    x, u, w = (jnp.split(values, 3) for values in (x, own @ of_own, partner @ of_partner))
    r, z = (jax.nn.sigmoid(x[gate] + u[gate] + w[gate]) for gate in (0, 1))
    return z * own + (1 - z) * jnp.tanh(x[2] + w[2] + r * u[2])


def reference(params: dict, case: table.Case) -> tuple[jax.Array, jax.Array]:
    """Run one interaction at a time. Return the tables and the states before each [N, 2, D]."""
    stream = case.stream

    def body(tables, event):
        users, items = tables
        user, item, x = event
        for_user, for_item = jnp.split(x @ params["features"] + params["bias"], 2)
        u, i = users[user], items[item]
        new_user = cell(for_user, u, i, params["user_own"], params["user_partner"])
        new_item = cell(for_item, i, u, params["item_own"], params["item_partner"])
        return (users.at[user].set(new_user), items.at[item].set(new_item)), jnp.stack([u, i])

    sizes = (stream.num_users, stream.num_items)
    tables = tuple(jnp.tile(start, (size, 1)) for start, size in zip(params["start"], sizes, strict=True))
    tables, before = jax.lax.scan(body, tables, (stream.user, stream.item, case.features()))
    return jnp.concatenate(tables), before


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("interactions", [1, 2, 150])
def test_states_equal_the_reference(torch, monkeypatch: pytest.MonkeyPatch, name: str, interactions: int) -> None:
    monkeypatch.setattr(peer, "WINDOW", 40)
    case = make_case(interactions)
    values = peer.initial(case.state_size, case.feature_size)
    run = peer.Peer(name, case.stream, case)
    after, before = run.forward(run.params(values))
    expected_after, expected_before = reference(values, case)
    np.testing.assert_allclose(after.numpy(), expected_after, atol=2e-6)
    for order, seen in zip(run.order, before, strict=True):
        np.testing.assert_allclose(seen.numpy().reshape(-1, 2, 4), np.asarray(expected_before)[order], atol=2e-6)
    assert sorted(np.concatenate(run.order)) == list(range(interactions))


@pytest.mark.parametrize("name", NAMES)
def test_the_update_of_one_window_equals_the_reference(torch, name: str) -> None:
    """A step of plain gradient descent shows the gradient. All rows are used, so all variants have the same table."""
    case = make_case(150)
    values = peer.initial(case.state_size, case.feature_size)
    run = peer.Peer(name, case.stream, case)
    params = run.params(values)
    loss = run.train(params, torch.optim.SGD(params.values(), lr=1.0))

    def expected(params: dict) -> jax.Array:
        after, before = reference(params, case)
        return jnp.mean(before**2) + jnp.mean(after**2)

    expected_loss, gradients = jax.value_and_grad(expected)({k: jnp.asarray(v) for k, v in values.items()})
    assert loss == pytest.approx(float(expected_loss), rel=1e-5)
    for key, value in values.items():
        np.testing.assert_allclose(value - params[key].detach().numpy(), gradients[key], atol=2e-6, err_msg=key)


@pytest.mark.parametrize("name", NAMES[1:])
def test_windows_train_one_after_the_other(torch, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The second window begins with the last states of the first one, and each window has its own loss."""
    monkeypatch.setattr(peer, "WINDOW", 40)
    case = make_case(80)
    run = peer.Peer(name, case.stream, case)
    values = peer.initial(case.state_size, case.feature_size)
    params = run.params(values)
    loss = run.train(params, torch.optim.SGD(params.values(), lr=0.0))
    expected = 0.0
    for begin, end in ((0, 40), (40, 80)):
        after, before = reference(values, dataclasses.replace(case, stream=case.stream.head(end)))
        touched = (
            np.arange(len(after))
            if name == "t_batch_table"
            else np.unique([case.stream.user[begin:end], case.stream.item[begin:end] + case.stream.num_users])
        )
        expected += float(jnp.mean(before[begin:] ** 2) + jnp.mean(after[touched] ** 2))
    assert loss == pytest.approx(expected, rel=1e-5)


def test_rows_have_what_was_measured(torch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "SAMPLE", 30)
    monkeypatch.setattr(peer, "WINDOW", 40)
    monkeypatch.setattr(peer, "AT_ITS_BEST", 10**12)
    rows, lines = peer.rows(make_case(100))
    assert [(row.implementation, row.interactions, row.bptt_windows) for row in rows] == [
        ("sequential", 30, 1),
        ("t_batch_table", 100, 3),
        ("t_batch_compact", 100, 3),
    ]
    assert rows[0].steps == 30
    assert rows[1].depth < rows[1].steps == rows[2].steps < 100
    assert all(row.train and row.train.lowest <= row.train.median <= row.train.highest for row in rows)
    assert "not at its best" in lines[1]


def test_a_missing_pytorch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(UserError, match="pip install torch"):
        peer.rows(make_case(10))

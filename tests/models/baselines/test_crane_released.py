"""Compare CRANE's released code with NumPy twins: attention over all items, and over each item's modalities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drex_jax.common.errors import UserError
from drex_jax.models.baselines import crane_released
from drex_jax.models.baselines.crane_released import HEADS, Released, ReleasedAxisFixed, attend
from drex_jax.models.graph.propagation import propagate
from drex_jax.models.settings import RankerSettings

OPTIONS = RankerSettings(size=8, batch_size=16, l2=0.03, layers=2, neighbours=3)
KINDS = {False: Released, True: ReleasedAxisFixed}
THREE = ("audio", "image", "text")


def twin_attention(weights, x, present):
    """Attend within one sequence [S, D], one query and one head at a time; takes any weights of `attend`."""
    (into, bias), (out, out_bias) = (map(np.asarray, weights[name]) for name in ("into", "out"))
    length, size = x.shape
    width = size // HEADS
    query, key, value = np.split(x @ into + bias, 3, axis=1)
    attended = np.zeros((length, size))
    for s in range(length):
        for head in range(HEADS):
            part = slice(head * width, (head + 1) * width)
            others = np.flatnonzero(present)
            scores = np.exp(key[others, part] @ query[s, part] / np.sqrt(width))
            attended[s, part] = scores / scores.sum() @ value[others, part]
    return attended @ out + out_bias


def twin_fused(params, events, modalities, axis_fixed):
    """Return the fused features of the items [I, D]."""
    present = np.stack([~np.isnan(events.item_vectors[name]).any(1) for name in modalities])
    projected = []
    for m, name in enumerate(modalities):
        x = np.nan_to_num(events.item_vectors[name])
        for weight, bias in (params["first"][m], params["second"][m]):
            x = x @ np.asarray(weight) + np.asarray(bias)
        projected.append(x)
    projected = np.stack(projected)
    attended = np.zeros_like(projected)
    if axis_fixed:
        for i in np.flatnonzero(present.any(0)):
            attended[:, i] = twin_attention(params["attention"], projected[:, i], present[:, i])
    else:
        for m in range(len(modalities)):
            attended[m] = twin_attention(params["attention"], projected[m], present[m])
    return (attended * present[:, :, None]).sum(0) / np.maximum(present.sum(0), 1)[:, None]


def shaken(params):
    """Return parameters without zeros, with attention that is far from uniform."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(9), len(leaves))
    return tree.unflatten([x + 0.5 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)])


@pytest.mark.parametrize(
    ("modalities", "axis_fixed"), [(("image",), False), (THREE, False), (("audio", "image"), True), (("image",), True)]
)
def test_rows_and_loss_are_those_of_a_slow_twin(
    make_items, twin_graphs, first_loss, monkeypatch, modalities, axis_fixed
):
    monkeypatch.setattr(crane_released, "BLOCK_SCORES", 4 * 11 * 7)  # blocks that do not divide the items
    events, sizes = make_items(modalities)
    stream = KINDS[axis_fixed].stream(events, sizes, OPTIONS)
    params = shaken(stream.init(jax.random.key(1))) | {"features": stream.init(jax.random.key(1))["features"]}
    users, items = twin_graphs(events, sizes, params["table"], 2)
    semantic = np.asarray(propagate(stream.constants.semantic, np.eye(events.num_items)))  # see test_freedom
    items = items + semantic @ twin_fused(params, events, modalities, axis_fixed)
    carry = stream.start(params)
    np.testing.assert_allclose(carry.user, users, atol=1e-4)
    np.testing.assert_allclose(carry.item, items, atol=1e-4)
    loss, figures, pairs = first_loss(stream, params)
    ranking = np.logaddexp(0, (users[pairs.user] * (items[pairs.negative] - items[pairs.item])).sum(1)).mean()
    nodes = (pairs.user, events.num_users + pairs.item, events.num_users + pairs.negative)
    penalty = sum((np.asarray(params["table"])[each] ** 2).sum(1).mean() for each in nodes)
    assert figures["ranking_loss"] == pytest.approx(ranking, rel=1e-4)
    assert loss == pytest.approx(ranking + 0.03 * penalty, rel=1e-4)


@pytest.mark.parametrize(
    "length", [pytest.param(1, marks=pytest.mark.thorough), 5, pytest.param(13, marks=pytest.mark.thorough)]
)
def test_gradients_in_blocks_are_those_of_the_whole(monkeypatch, length):
    """The gradients agree with missing entries, and with padding at the end of the last block."""
    keys = jax.random.split(jax.random.key(2), 4)
    x = jax.random.normal(keys[0], (2, length, 8))
    present = jax.random.bernoulli(keys[1], 0.7, (2, length)).at[:, 0].set(True)
    weights = {"into": (jax.random.normal(keys[2], (8, 24)), jnp.ones(24)), "out": (jnp.eye(8), jnp.zeros(8))}

    def whole(weights, x):
        heads = (x @ weights["into"][0] + weights["into"][1]).reshape(2, length, 3, HEADS, 2)
        query, key, value = heads[:, :, 0], heads[:, :, 1], heads[:, :, 2]
        scores = jnp.einsum("nshd,nthd->nhst", query, key) / jnp.sqrt(2.0)
        scores = jax.nn.softmax(jnp.where(present[:, None, None], scores, -jnp.inf), axis=-1)
        return jnp.einsum("nhst,nthd->nshd", scores, value).reshape(2, length, 8) @ weights["out"][0]

    monkeypatch.setattr(crane_released, "BLOCK_SCORES", 2 * HEADS * length * 3)
    found = jax.grad(lambda *a: (attend(*a, present) ** 3).sum(), argnums=(0, 1))(weights, x)
    expected = jax.grad(lambda *a: (whole(*a) ** 3).sum(), argnums=(0, 1))(weights, x)
    chosen = [jax.tree.leaves((each[0]["into"], each[1])) for each in (found, expected)]
    for a, b in zip(*chosen, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * float(jnp.abs(b).max()))


def test_modalities_meet_only_where_the_axis_is_mended():
    """An item's image changes the other items' images (axis as released) or its own sound (axis fixed), never both."""
    weights = shaken({"into": (jnp.zeros((8, 24)), jnp.zeros(24)), "out": (jnp.eye(8), jnp.zeros(8))})
    x = jax.random.normal(jax.random.key(0), (2, 11, 8))
    there = jnp.ones((2, 11), bool)
    changed = x.at[1, 4].add(1.0)

    def differs(attention):
        return np.abs(attention(changed) - attention(x)).max(-1) > 1e-6

    over_items = differs(lambda x: attend(weights, x, there))
    assert not over_items[0].any()
    assert over_items[1].all()
    over_modalities = differs(lambda x: attend(weights, x.swapaxes(0, 1), there.T).swapaxes(0, 1))
    assert over_modalities[:, 4].all()
    assert not np.delete(over_modalities, 4, axis=1).any()


@pytest.mark.parametrize("axis_fixed", [False, True])
def test_numbers_of_items_mean_nothing(make_items, permuted, axis_fixed):
    events, sizes = make_items(("audio", "image"))
    order = np.random.default_rng(3).permutation(events.num_items)
    stream = KINDS[axis_fixed].stream(events, sizes, OPTIONS)
    other = KINDS[axis_fixed].stream(permuted(events, order), sizes, OPTIONS)
    params = shaken(stream.init(jax.random.key(1)))
    nodes = np.concatenate([np.arange(events.num_users), events.num_users + order])
    moved = {**params, "table": params["table"][nodes], "features": [each[order] for each in params["features"]]}
    np.testing.assert_allclose(other.start(moved).item, stream.start(params).item[order], atol=1e-4)
    np.testing.assert_allclose(other.start(moved).user, stream.start(params).user, atol=1e-4)


def test_what_it_refuses(make_items, monkeypatch):
    with pytest.raises(UserError, match="crane_released needs features of items"):
        Released.stream(*make_items(()), OPTIONS)
    with pytest.raises(UserError, match=r"ranker.size = 6: .* multiple of its 4 heads"):
        Released.stream(*make_items(("image",)), RankerSettings(size=6))
    monkeypatch.setattr(crane_released, "MAX_ITEMS", 5)
    with pytest.raises(UserError, match="at most 5, and these data have"):
        Released.stream(*make_items(("image",)), OPTIONS)
    ReleasedAxisFixed.stream(*make_items(("image",)), OPTIONS)


@pytest.mark.thorough
def test_a_step_is_the_same_on_several_devices(make_items, same_on_devices):
    items = make_items(("image", "text"))
    same_on_devices(lambda devices: Released.stream(*items, OPTIONS, devices=devices))


@pytest.mark.thorough
def test_it_learns_the_same_for_a_seed(make_items, fitted):
    """Training on a sample of the interactions in each epoch, with missing modalities, is deterministic and learns."""
    options = RankerSettings(size=8, batch_size=16, l2=0.0, edge_dropout=0.5)
    stream = Released.stream(*make_items(("audio", "image"), 0.5), options)
    losses, params = fitted(stream, 30)
    assert losses == fitted(stream, 30)[0]
    assert losses[-1] < 0.9 * losses[0]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))

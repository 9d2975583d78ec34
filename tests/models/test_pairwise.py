"""Compare the pairwise rankers BPR and LightGCN with dense twins: batches, negatives, rows and loss."""

import dataclasses

import jax
import numpy as np
import pytest

from drex_jax.models.baselines.factors import BPR
from drex_jax.models.baselines.lightgcn import LightGCN
from drex_jax.models.graph.sampling import draw_negatives
from drex_jax.models.settings import RankerSettings

OPTIONS = RankerSettings(size=4, batch_size=16, l2=0.03, layers=3)
MODELS = {"bpr": BPR, "lightgcn": LightGCN}


@pytest.mark.parametrize(("name", "batch_size", "devices"), [("bpr", 16, 1), ("lightgcn", 16, 1), ("lightgcn", 99, 16)])
def test_rows_and_loss_are_those_of_a_slow_twin(make_items, twin_graphs, first_loss, name, batch_size, devices):
    events, sizes = make_items(())
    stream = MODELS[name].stream(events, sizes, dataclasses.replace(OPTIONS, batch_size=batch_size), devices=devices)
    params = jax.jit(stream.init)(jax.random.key(1))
    table = np.concatenate([params["user"], params["item"]]) if name == "bpr" else np.asarray(params["table"])
    users, items = twin_graphs(events, sizes, table, 3 if name == "lightgcn" else 0)
    carry = stream.start(params)
    np.testing.assert_allclose(carry.user, users, atol=1e-6)
    np.testing.assert_allclose(carry.item, items, atol=1e-6)
    loss, figures, pairs = first_loss(stream, params)
    if devices > 1:  # one batch with all pairs and padding
        assert len(pairs.user) == len(stream.pairs.user) < len(next(stream.batches(0)).user)
    ranking = np.logaddexp(0, (users[pairs.user] * (items[pairs.negative] - items[pairs.item])).sum(1)).mean()
    nodes = pairs.user, events.num_users + pairs.item, events.num_users + pairs.negative
    penalty = sum((table[node] ** 2).sum(1).mean() for node in nodes)
    assert set(figures) == {"ranking_loss"}
    assert float(figures["ranking_loss"]) == pytest.approx(ranking, rel=1e-5)
    assert loss == pytest.approx(ranking + 0.03 * penalty, rel=1e-5)


def test_an_epoch_has_every_distinct_train_pair_once(make_items):
    events, sizes = make_items(())
    train = list(zip(events.user[: sizes[0]].tolist(), events.item[: sizes[0]].tolist(), strict=True))
    assert len(set(train)) < len(train)  # there are duplicates, which count once
    stream, epochs = BPR.stream(events, sizes, OPTIONS, devices=3), []
    for epoch in (0, 1):
        batches = list(stream.batches(epoch))
        assert (
            len(batches) == stream.steps_per_epoch() == BPR.stream(events, sizes, OPTIONS).steps_per_epoch()
        )  # for any number of devices
        assert max(batch.valid.sum() for batch in batches) == 16
        assert {batch.user.shape for batch in batches} == {(18,)}  # padded for 3 devices
        pairs = [
            (int(user), int(item))
            for batch in batches
            for user, item, valid in zip(batch.user, batch.item, batch.valid, strict=True)
            if valid
        ]
        assert sorted(pairs) == sorted(set(train))
        epochs.append(pairs)
    assert epochs[0] != epochs[1]

    def order(stream, epoch):
        return [batch.user.tolist() for batch in stream.batches(epoch)]

    assert order(stream, 1) == order(stream, 1)
    assert order(stream.with_seed(1), 1) != order(stream, 1)
    assert order(stream.with_seed(0), 1) == order(stream, 1)
    assert all(batch.constants is next(stream.with_seed(1).batches(0)).constants for batch in stream.batches(0))
    assert not any(leaf.flags.writeable for leaf in jax.tree.leaves(stream._constants))


def test_padding_changes_nothing(make_items):
    """Values in the padding of a batch do not change loss or gradients."""
    events, sizes = make_items(())
    stream = BPR.stream(events, sizes, dataclasses.replace(OPTIONS, batch_size=99), devices=16)
    params, key = jax.jit(stream.init)(jax.random.key(1)), jax.random.key(2)
    batch = next(stream.batches(0))
    assert not batch.valid.all()
    other = batch._replace(user=np.where(batch.valid, batch.user, 0), item=np.where(batch.valid, batch.item, 1))
    grad = jax.jit(jax.value_and_grad(stream.model.loss, has_aux=True))
    jax.tree.map(np.testing.assert_array_equal, grad(params, (), batch, key), grad(params, (), other, key))
    nothing = grad(params, (), batch._replace(valid=np.zeros_like(batch.valid)), key)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(nothing))


def test_negatives_are_items_of_train_that_the_user_has_not(make_items):
    """Each such item is drawn equally often; items outside train are never negatives, as in the public code."""
    events, sizes = make_items(())
    stream = BPR.stream(events, sizes, OPTIONS)
    mine = set(zip(stream.pairs.user.tolist(), stream.pairs.item.tolist(), strict=True))
    num_items = int(stream.pairs.item.max()) + 1
    assert num_items < events.num_items
    users = np.repeat(np.arange(events.num_users), 400)
    drawn = np.asarray(draw_negatives(jax.random.key(0), stream._constants[0], users, stream.model.sizes.train_items))
    counts = np.zeros((events.num_users, num_items), int)
    np.add.at(counts, (users, drawn), 1)
    for user in range(events.num_users):
        others = [item for item in range(num_items) if (user, item) not in mine]
        if others:  # a user with all items has no negative, and gets any item
            assert set(np.flatnonzero(counts[user])) == set(others)
            assert counts[user][others].min() > 400 / len(others) / 2


def test_a_step_is_the_same_on_several_devices(make_items, same_on_devices):
    same_on_devices(lambda devices: LightGCN.stream(*make_items(()), OPTIONS, devices=devices))


def test_it_learns_the_same_for_a_seed_whatever_the_chunk(make_items, fitted):
    events, sizes = make_items(())
    stream = LightGCN.stream(events, sizes, OPTIONS)
    losses, params = fitted(stream, 10)
    assert stream.chunk > stream.steps_per_epoch() > 1
    again, same = fitted(stream, 10)
    assert losses == again
    jax.tree.map(np.testing.assert_array_equal, params, same)
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    stream.chunk = 1
    single, others = fitted(stream, 10)
    np.testing.assert_allclose(single, losses, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), others, params)


def test_numbers_of_users_and_items_mean_nothing(make_items, permuted):
    events, sizes = make_items(())
    order = np.random.default_rng(3).permutation(events.num_items)
    stream, other = LightGCN.stream(events, sizes, OPTIONS), LightGCN.stream(permuted(events, order), sizes, OPTIONS)
    table = np.asarray(stream.init(jax.random.key(1))["table"])
    users, items = np.split(table, [events.num_users])
    rows, moved = stream.start({"table": table}), other.start({"table": np.concatenate([users, items[order]])})
    np.testing.assert_allclose(moved.user, rows.user, atol=1e-6)
    np.testing.assert_allclose(moved.item, rows.item[order], atol=1e-6)


def test_it_predicts_no_ratings(make_items):
    stream = BPR.stream(*make_items(()), OPTIONS)
    assert (stream.model.rates, stream.model.ranks) == (False, True)
    with pytest.raises(TypeError, match="BPR ranks and predicts no ratings"):
        stream.model.rate({}, np.zeros(2), np.zeros(2))

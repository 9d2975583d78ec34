"""Compare FREEDOM with a NumPy twin with dense matrices: rows, loss, graph of items, sample of interactions."""

import dataclasses

import jax
import numpy as np
import pytest

from drex_jax.common.errors import UserError
from drex_jax.models.baselines.freedom import FREEDOM
from drex_jax.models.graph.item_item import feature_graph, item_features, modality_weights
from drex_jax.models.graph.propagation import propagate
from drex_jax.models.settings import RankerSettings

OPTIONS = RankerSettings(size=4, batch_size=16, l2=0.03, layers=2, neighbours=3, feature_weight=0.5, first_modality=0.1)
WEIGHTS = {("image",): [1.0], ("audio", "image"): [0.9, 0.1], ("audio", "image", "text"): [0.45, 0.1, 0.45]}


@pytest.mark.parametrize("modalities", WEIGHTS)
def test_rows_and_loss_are_those_of_a_slow_twin(make_items, twin_graphs, first_loss, modalities):
    events, sizes = make_items(modalities)
    stream = FREEDOM.stream(events, sizes, OPTIONS)
    params = stream.init(jax.random.key(1))
    users, items = twin_graphs(events, sizes, params["table"], 2)
    own = np.asarray(params["table"])[events.num_users :]
    items = items + dense_feature_graph(events.item_vectors, WEIGHTS[modalities], 3) @ own
    carry = stream.start(params)
    np.testing.assert_allclose(carry.user, users, atol=1e-5)
    np.testing.assert_allclose(carry.item, items, atol=1e-5)

    loss, figures, pairs = first_loss(stream, params)
    ranking = np.logaddexp(0, (users[pairs.user] * (items[pairs.negative] - items[pairs.item])).sum(1)).mean()
    features = 0.0
    for name, weight in zip(modalities, params["project"], strict=True):
        values = events.item_vectors[name]
        both = ~np.isnan(values[pairs.item]).any(1) & ~np.isnan(values[pairs.negative]).any(1)
        assert both.any()
        difference = (values[pairs.negative] - values[pairs.item])[both] @ np.asarray(weight)
        features += np.logaddexp(0, (users[pairs.user][both] * difference).sum(1)).mean()
    nodes = (pairs.user, events.num_users + pairs.item, events.num_users + pairs.negative)
    penalty = sum((np.asarray(params["table"])[each] ** 2).sum(1).mean() for each in nodes)
    assert figures["ranking_loss"] == pytest.approx(ranking, rel=1e-5)
    assert figures["feature_loss"] == pytest.approx(features, rel=1e-5)
    assert loss == pytest.approx(ranking + 0.5 * features + 0.03 * penalty, rel=1e-5)


def dense_feature_graph(item_vectors, weights, k):
    """Return the graph of items [I, I], built one item and one modality at a time."""
    present = {name: ~np.isnan(values).any(1) for name, values in item_vectors.items()}
    num_items = len(next(iter(present.values())))
    matrix = np.zeros((num_items, num_items))
    for i in range(num_items):
        total = sum(weight for name, weight in zip(sorted(present), weights, strict=True) if present[name][i])
        for name, weight in zip(sorted(present), weights, strict=True):
            values, there = item_vectors[name], np.flatnonzero(present[name])
            if present[name][i]:
                cosine = values[there] @ values[i] / np.linalg.norm(values[there], axis=1)
                for j in there[np.argsort(-cosine, kind="stable")[:k]]:
                    matrix[i, j] += weight / total / min(k, len(there))
    return matrix


def test_missing_modalities_in_the_graph_of_items(make_items):
    """The row of an item with any modality sums to 1, whichever modalities it has and however few items have them."""
    events, _ = make_items(("audio", "image"), missing=0.6)
    events.item_vectors["image"][3:] = np.nan
    events.item_vectors["image"][:3] = np.arange(15).reshape(3, 5) + 1
    events.item_vectors["audio"][-1] = np.nan
    graph = feature_graph(item_features(events.item_vectors, "FREEDOM"), 4, 0.1)
    sums = np.asarray(propagate(graph, np.eye(events.num_items, dtype=np.float32)))
    some = ~np.stack([np.isnan(values).any(1) for values in events.item_vectors.values()]).all(0)
    assert some.sum() not in (0, len(some))
    np.testing.assert_allclose(sums.sum(1), some, atol=1e-6)
    np.testing.assert_allclose(sums, dense_feature_graph(events.item_vectors, [0.9, 0.1], 4), atol=1e-6)


def test_which_modality_is_first():
    assert modality_weights(("audio", "image"), 0.1) == pytest.approx([0.9, 0.1])
    assert modality_weights(("audio", "text"), 0.1) == pytest.approx([0.1, 0.9])
    assert modality_weights(("text",), 0.1) == pytest.approx([1.0])


def test_an_epoch_keeps_a_sample_of_the_pairs(make_items, twin_graphs):
    """The epoch's graph has only the kept pairs, also in its degrees; pairs of low degree are kept more often."""
    events, sizes = make_items(("image",))
    stream = FREEDOM.stream(events, sizes, dataclasses.replace(OPTIONS, edge_dropout=0.6))
    n, num_users = events.num_users + events.num_items, events.num_users
    counts = np.zeros(len(stream.pairs.user))
    params = stream.init(jax.random.key(0))
    for epoch in range(60):
        graph = stream.renew(params, None, epoch, jax.random.fold_in(jax.random.key(5), epoch))
        dense = np.asarray(propagate(graph, np.eye(n, dtype=np.float32)))
        kept = dense[stream.pairs.user, num_users + stream.pairs.item] > 0
        assert kept.sum() == int(len(kept) * 0.4)
        matrix = np.zeros((n, n))
        matrix[stream.pairs.user[kept], num_users + stream.pairs.item[kept]] = 1
        matrix += matrix.T
        scale = 1 / np.sqrt(np.maximum(matrix.sum(1), 1))
        np.testing.assert_allclose(dense, scale[:, None] * matrix * scale, atol=1e-6)
        counts += kept
    degree = np.bincount(stream.pairs.user)[stream.pairs.user] * np.bincount(stream.pairs.item)[stream.pairs.item]
    assert np.corrcoef(counts, degree**-0.5)[0, 1] > 0.5
    whole, _ = twin_graphs(events, sizes, params["table"], 2)
    np.testing.assert_allclose(stream.start(params).user, whole, atol=1e-5)  # predictions use all pairs


def test_without_features_it_refuses(make_items):
    with pytest.raises(UserError, match="FREEDOM needs features of items"):
        FREEDOM.stream(*make_items(()), OPTIONS)


@pytest.mark.thorough
def test_a_step_is_the_same_on_several_devices(make_items, same_on_devices):
    options = dataclasses.replace(OPTIONS, edge_dropout=0.5)
    same_on_devices(lambda devices: FREEDOM.stream(*make_items(("image", "text")), options, devices=devices))


def test_it_learns_the_same_for_a_seed(make_items, fitted):
    events, sizes = make_items(("audio", "image"))
    stream = FREEDOM.stream(events, sizes, dataclasses.replace(OPTIONS, edge_dropout=0.5, l2=0.0))
    losses, params = fitted(stream, 60)
    again, _ = fitted(stream, 60)
    assert losses == again
    assert losses[-1] < 0.8 * losses[0]
    assert not np.array_equal(params["features"][0], stream.init(jax.random.key(5))["features"][0])  # trained
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))

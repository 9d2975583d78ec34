"""Compare CRANE's rows, loss and graph of items with NumPy twins, also with options off and data missing."""

import dataclasses

import jax
import numpy as np
import pytest

from drex_jax.common.errors import UserError
from drex_jax.data.events import Events
from drex_jax.models.crane.model import Crane
from drex_jax.models.crane.settings import CraneSettings
from drex_jax.models.graph.propagation import propagate
from drex_jax.models.settings import RankerSettings

OPTIONS = RankerSettings(size=4, batch_size=16, l2=0.03, layers=2, neighbours=3)


def make(events_and_sizes, devices=1, options=OPTIONS, **crane):
    crane_settings = CraneSettings(**{"contrastive_weight": 0.5} | crane)
    return Crane.stream(*events_and_sizes, options, crane_settings, devices=devices)


def started(stream):
    """Return parameters other than the initial ones, so that each of them matters."""
    rng = np.random.default_rng(7)
    params = jax.eval_shape(stream.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), params)


# The twin: float64, dense matrices, and for each pair a newly computed mean of the user's items


class Twin:
    def __init__(self, model, params, events, sizes):
        self.options, self.crane = model.settings, model.crane
        self.params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
        self.num_users, self.num_items = events.num_users, events.num_items
        names = sorted(events.item_vectors)
        raw = [events.item_vectors[name].astype(np.float64) for name in names]
        self.there = np.array([~np.isnan(values).any(1) for values in raw])
        self.features, self.projected = [], []
        for values, there, weight in zip(raw, self.there, self.params["project"], strict=True):
            known = values[there]
            deviation = np.array([column.std() or 1.0 for column in known.T])
            known = (known - known.mean(0)) / deviation
            self.features.append(self._rows(there, known))
            known = known @ weight
            self.projected.append(self._rows(there, (known - known.mean(0)) / np.sqrt(known.var(0) + 1e-3)))
        refined = refine(self.params["item"], self.projected, self.there, np.ones(self.num_items, bool))
        self.content = direction(refined, self.there)
        liked = zip(events.user[: sizes[0]].tolist(), events.item[: sizes[0]].tolist(), strict=True)
        self.liked = [[] for _ in range(self.num_users)]
        for user, item in sorted(set(liked)):
            self.liked[user].append(item)
        self.semantic = self._graph() @ self.content if self.crane.semantic_graph else self.content

    def _rows(self, there, known):
        rows = np.zeros((self.num_items, known.shape[1]))
        rows[there] = known
        return rows

    def _graph(self):
        read = self.content if self.crane.graph_epochs else np.concatenate(self.features, 1)
        some = np.flatnonzero(self.there.any(0))
        matrix = np.zeros((self.num_items, self.num_items))
        for i in some:
            others = [j for j in some if j != i]
            cosines = [
                read[i] @ read[j] / max(np.linalg.norm(read[i]) * np.linalg.norm(read[j]), 1e-30) for j in others
            ]
            nearest = np.argsort(-np.array(cosines), kind="stable")[: self.options.neighbours]
            for place in nearest:
                matrix[i, others[place]] = 1 / len(nearest)
        return matrix

    def users(self, liked, counted):
        """Return the content of users with these lists of items; correlations are over the users in `counted`."""
        there = np.array([[own[items].any() for items in liked] for own in self.there])
        size = self.options.size
        contents = [
            np.array([rows[[i for i in items if own[i]]].mean(0) if has else np.zeros(size) for items, has in each])
            for rows, own, each in (
                (rows, own, list(zip(liked, has, strict=True)))
                for rows, own, has in zip(self.projected, self.there, there, strict=True)
            )
        ]
        return direction(refine(self.params["user"], contents, there, counted), there)

    def everyone(self, users, items):
        """Return the rows of all users and items from those of the behaviour view."""
        if self.crane.user_profiles:
            users = users + self.users(self.liked, np.ones(self.num_users, bool))
        return users, items + self.semantic

    def loss(self, behaviour_users, behaviour_items, pairs):
        """Return (loss, ranking loss, contrast) of a batch."""
        users = behaviour_users[pairs.user]
        known = self.there.any(0)[pairs.item]
        contrast = self._contrast(pairs.item, behaviour_items[pairs.item], self.semantic[pairs.item], known)
        if self.crane.user_profiles:
            first = [pairs.user.tolist().index(user) for user in dict.fromkeys(pairs.user.tolist())]
            left = [
                [other for other in self.liked[user] if other != item or not self.crane.leave_one_out]
                for user, item in zip(pairs.user, pairs.item, strict=True)
            ]
            content = self.users(left, np.isin(np.arange(len(left)), first))
            known = np.array([self.there[:, items].any() for items in left])
            contrast += self._contrast(pairs.user, users, content, known)
            users = users + content
        items = behaviour_items + self.semantic
        ranking = np.logaddexp(0, (users * (items[pairs.negative] - items[pairs.item])).sum(1)).mean()
        nodes = pairs.user, self.num_users + pairs.item, self.num_users + pairs.negative
        penalty = sum((self.params["table"][node] ** 2).sum(1).mean() for node in nodes)
        total = ranking + self.options.l2 * penalty + self.crane.contrastive_weight * contrast
        return total, ranking, contrast

    def _contrast(self, numbers, behaviour, content, known):
        """Return InfoNCE over the distinct numbers with content; those in the first `anchors` rows are anchors."""
        first = list({number: i for i, number in reversed(list(enumerate(numbers.tolist()))) if known[i]}.values())
        behaviour, content = (
            rows / np.maximum(np.linalg.norm(rows, axis=1), 1e-12)[:, None] for rows in (behaviour, content)
        )
        each = []
        for i in [i for i in first if i < self.crane.anchors]:
            logits = {j: behaviour[i] @ content[j] / self.crane.temperature for j in first}
            each.append(np.log(sum(map(np.exp, logits.values()))) - logits[i])
        return np.mean(each)


def refine(rounds, contents, there, counted):
    for each in rounds:
        joint, changed = np.concatenate(contents, 1) @ each.joint, []
        for m, content in enumerate(contents):
            rows = there[m] & counted
            matrix = content[rows].T @ joint[rows] / max(rows.sum(), 1)
            matrix = np.tanh(each.scale[m] * matrix / np.sqrt((matrix**2).mean() + 1e-12))
            hidden = np.maximum(content @ each.own[m] + joint @ matrix.T @ each.attended[m], 0)
            read = hidden[rows] if rows.any() else np.zeros((1, hidden.shape[1]))
            hidden = (hidden - read.mean(0)) / np.sqrt(read.var(0) + 1e-3)
            changed.append(content + np.where(there[m][:, None], hidden, 0) @ each.out[m])
        contents = changed
    return contents


def direction(contents, there):
    rows = []
    for i in range(there.shape[1]):
        own = [content[i] for content, has in zip(contents, there, strict=True) if has[i]]
        mean = np.mean(own, 0) if own else np.zeros(contents[0].shape[1])
        rows.append(mean / max(np.linalg.norm(mean), 1e-12))
    return np.array(rows)


def gaps():
    """Return data with everything missing that can be; the names below tell what."""
    lonely, absent, bare, single = 0, 5, 1, 6  # users with 1 and 0 items; items: no feature, only text
    pairs = [(lonely, 2), (1, bare), (1, 2), (1, 3), (2, 0), (2, 0), (2, single), (3, bare), (3, bare), (4, 4), (4, 5)]
    held_out = [(absent, 3), (1, 5)]
    user, item = (np.array(column, np.int32) for column in zip(*pairs, *held_out, strict=True))
    image = np.random.default_rng(0).normal(0, 1, (8, 5)).astype(np.float32)
    text = np.full((8, 3), np.nan, np.float32)
    text[single] = 2.0, -1.0, 0.5
    image[[bare, single, 7]] = np.nan
    image[:, 1] = np.where(np.isnan(image[:, 1]), np.nan, 4.0)  # a constant column
    n = len(user)
    rating = np.full(n, np.nan, np.float32)
    events = Events(user, item, np.arange(n) * 1.0, rating, None, {}, 6, 8, {"image": image, "text": text})
    return events, (len(pairs), 1, 1)


CASES = {
    "one modality": (("image",), {"rounds": 2}),
    "projections alone": (("audio", "image"), {"rounds": 0, "graph_epochs": 2}),
    "three modalities": (("audio", "image", "text"), {"rounds": 1, "temperature": 0.7, "anchors": 6}),
    "frozen graph, own item": (("audio", "image"), {"graph_epochs": 0, "leave_one_out": False}),
    "no profiles, no graph": (("audio", "image"), {"user_profiles": False, "semantic_graph": False, "rounds": 1}),
    "gaps": ((), {"rounds": 2}),
}


@pytest.mark.parametrize("case", CASES)
def test_rows_and_loss_are_those_of_a_slow_twin(make_items, twin_graphs, first_loss, case):
    modalities, crane = CASES[case]
    events, sizes = make_items(modalities) if modalities else gaps()
    devices = 16 if case in ("one modality", "gaps") else 1  # a batch with padding
    options = dataclasses.replace(OPTIONS, batch_size=4096 if devices > 1 else 16)
    stream = make((events, sizes), devices, options, **crane)
    params = started(stream)
    twin = Twin(stream.model, params, events, sizes)
    behaviour = twin_graphs(events, sizes, params["table"], 2)
    carry = stream.start(params)
    for found, expected in zip(carry, twin.everyone(*behaviour), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    loss, figures, pairs = first_loss(stream, params)
    if devices > 1:
        assert len(pairs.user) == len(stream.pairs.user) < len(next(stream.batches(0)).user)
    total, ranking, contrast = twin.loss(*behaviour, pairs)
    assert set(figures) == {"ranking_loss", "contrastive_loss"}
    assert float(figures["ranking_loss"]) == pytest.approx(ranking, rel=1e-4)
    assert float(figures["contrastive_loss"]) == pytest.approx(contrast, rel=1e-4)
    assert loss == pytest.approx(total, rel=1e-4)


def test_gaps_leave_gradients_finite_and_rows_as_behaviour_has_them(twin_graphs):
    events, sizes = gaps()
    stream = make((events, sizes), options=dataclasses.replace(OPTIONS, batch_size=4), rounds=2)
    params = jax.jit(stream.init)(jax.random.key(0))
    gradient = jax.jit(jax.grad(stream.model.loss, has_aux=True))
    carry = stream.renew(params, None, 0, jax.random.key(1))
    batches = list(stream.batches(0))
    assert {int(user) for batch in batches for user in batch.user} == {0, 1, 2, 3, 4}
    for batch in batches:
        found, _ = gradient(params, carry, batch, jax.random.key(2))
        for path, leaf in jax.tree_util.tree_leaves_with_path(found):
            assert np.isfinite(leaf).all(), path
            assert np.abs(leaf).max() < 1e3, path
    rows = stream.start(params)
    users, items = twin_graphs(events, sizes, params["table"], 2)
    np.testing.assert_allclose(rows.user[np.array([3, 5])], users[[3, 5]], atol=1e-6)
    np.testing.assert_allclose(rows.item[np.array([1, 7])], items[[1, 7]], atol=1e-6)
    assert np.abs(rows.user[0] - users[0]).max() > 0.01  # predictions include its only item


def test_a_switch_that_is_off_leaves_its_part_out(make_items, twin_graphs, first_loss):
    data = make_items(("audio", "image"))
    stream = make(data, user_profiles=False, contrastive_weight=0.0)
    params = started(stream)
    assert set(params) == {"table", "project", "item"}
    loss, figures, pairs = first_loss(stream, params)
    twin = Twin(stream.model, params, *data)
    behaviour = twin_graphs(*data, params["table"], 2)
    assert set(figures) == {"ranking_loss"}
    assert loss == pytest.approx(twin.loss(*behaviour, pairs)[0], rel=1e-4)
    np.testing.assert_allclose(stream.start(params).user, behaviour[0], atol=1e-5)  # behaviour only
    assert not make(data, rounds=0).init(jax.random.key(0))["item"]


def test_without_features_it_refuses(make_items):
    with pytest.raises(UserError, match="CRANE needs features of items"):
        make(make_items(()))


# The graph of items


def dense(graph, n):
    return np.asarray(propagate(graph, np.eye(n, dtype=np.float32)))


def test_the_graph_of_items_is_renewed_when_it_should_be(make_items):
    data = make_items(("audio", "image"))
    num_items = data[0].num_items
    models = [make(data, graph_epochs=n) for n in range(3)]
    old, new = started(models[0]), models[0].init(jax.random.key(3))
    key = jax.random.key(0)
    carries = []
    for params in (old, new):
        carries.append(models[1].renew(params, None, 0, key))
        expected = Twin(models[1].model, params, *data)._graph()
        np.testing.assert_allclose(dense(carries[-1].semantic, num_items), expected, atol=1e-6)
    first, second = (dense(carry.semantic, num_items) for carry in carries)
    assert not np.array_equal(first, second)
    for n, kept in ((1, [False] * 3), (2, [False, True, False, True])):
        for epoch, keeps in enumerate(kept):
            found = models[n].renew(new, carries[0], epoch, key)
            np.testing.assert_array_equal(dense(found.semantic, num_items), first if keeps else second)
    np.testing.assert_array_equal(dense(models[2].renew(new, None, 1, key).semantic, num_items), second)
    assert [models[0].renew(new, carry, epoch, key) for carry, epoch in ((None, 0), (((), ()), 1))] == [((), ())] * 2
    frozen = models[0].constants.semantic
    np.testing.assert_allclose(dense(frozen, num_items), Twin(models[0].model, old, *data)._graph(), atol=1e-6)
    assert models[1].constants.semantic is None


# Permutations


def test_permuting_items_permutes_items_and_leaves_users(make_items, permuted):
    events, sizes = make_items(("audio", "image"))
    order = np.random.default_rng(3).permutation(events.num_items)
    stream, other = make((events, sizes)), make((permuted(events, order), sizes))
    params = started(stream)
    table = np.concatenate([params["table"][: events.num_users], params["table"][events.num_users :][order]])
    rows, moved = stream.start(params), other.start({**params, "table": table})
    np.testing.assert_allclose(moved.user, rows.user, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(moved.item, rows.item[order], rtol=1e-4, atol=1e-4)
    assert np.abs(moved.item - rows.item).max() > 0.1


def test_permuting_users_permutes_users_and_leaves_items(make_items):
    events, sizes = make_items(("audio", "image"))
    order = np.random.default_rng(4).permutation(events.num_users)
    renamed = dataclasses.replace(events, user=np.argsort(order)[events.user].astype(np.int32))
    stream, other = make((events, sizes)), make((renamed, sizes))
    params = started(stream)
    table = np.concatenate([params["table"][: events.num_users][order], params["table"][events.num_users :]])
    rows, moved = stream.start(params), other.start({**params, "table": table})
    np.testing.assert_allclose(moved.user, rows.user[order], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(moved.item, rows.item, rtol=1e-4, atol=1e-4)
    assert np.abs(moved.user - rows.user).max() > 0.1


# Training


def test_a_step_is_the_same_on_several_devices(make_items, same_on_devices):
    # a strong contrast would make so large steps that rounding errors grow
    crane = {"contrastive_weight": 0.02, "rounds": 1, "anchors": 5}  # 5 is not divisible by 4 devices
    same_on_devices(lambda devices: make(make_items(("image", "text")), devices, **crane))


@pytest.mark.thorough
def test_it_learns_on_samples_of_the_graph(make_items, fitted):
    """An epoch's graph has a share of the interactions, and predictions use all of them."""
    data = make_items(("audio", "image"))
    whole, stream = make(data), make(data, options=dataclasses.replace(OPTIONS, edge_dropout=0.5))
    params = started(stream)
    keys = jax.random.split(jax.random.key(0))
    samples = [stream.renew(params, None, epoch, key).behaviour for epoch, key in enumerate(keys)]
    assert not np.array_equal(*(dense(sample, len(params["table"])) for sample in samples))
    for found, expected in zip(stream.start(params), whole.start(params), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    losses, _ = fitted(stream, 8)
    assert np.mean(losses[-4:]) < np.mean(losses[:4])


def test_it_learns_the_same_for_a_seed(make_items, fitted):
    """One seed gives the same losses and parameters, every weight is trained, and another seed starts elsewhere."""
    stream = make(make_items(("audio", "image", "text")), contrastive_weight=0.1, graph_epochs=2)
    losses, params = fitted(stream, 8)
    again, same = fitted(stream, 8)
    assert losses == again
    jax.tree.map(np.testing.assert_array_equal, params, same)
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    start = stream.init(jax.random.key(5))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max() > 0, start, params)
    assert all(jax.tree.leaves(moved))  # every weight learns
    assert not np.array_equal(start["table"], stream.init(jax.random.key(6))["table"])

"""Make small streams with every kind of gap, and models over them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from drex_jax.data.events import Events
from drex_jax.data.tokens import Tokens
from drex_jax.devices.mesh import Devices
from drex_jax.models.drex import window
from drex_jax.models.drex.model import DReXOptions
from drex_jax.models.drex.network import NetworkOptions
from drex_jax.models.drex.stream import WindowStream
from drex_jax.models.graph.sampling import draw_negatives
from drex_jax.models.pairwise import Pairs
from drex_jax.models.running_bias import RunningBias
from drex_jax.training.step import Trainer

VOCABULARY = 20
NETWORK_FIELDS = {field.name for field in dataclasses.fields(NetworkOptions)}


def by_first_appearance(ids):
    numbers: dict[int, int] = {}
    return np.array([numbers.setdefault(int(k), len(numbers)) for k in ids], np.int32)


def _events(n=30, seed=0, users=6, items=7, rated=0.7, reviewed=0.0, pictured=0.5, spare=1):
    """Return a stream of n interactions with a hub user, a hub item and ties in time.

    `rated`, `reviewed` and `pictured` are the shares of rows that have a rating, a review and a picture.
    """
    rng = np.random.default_rng(seed)
    user = by_first_appearance(np.where(rng.random(n) < 0.3, 0, rng.integers(0, users, n)))
    item = by_first_appearance(np.where(rng.random(n) < 0.3, 0, rng.integers(0, items, n)))
    timestamp = 1e9 + np.cumsum(rng.integers(0, 3, n)) * 40_000.0
    rating = np.where(rng.random(n) < rated, rng.integers(1, 6, n), np.nan).astype(np.float32)
    lengths = np.where(rng.random(n) < reviewed, rng.integers(1, 7, n), 0)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = Tokens(rng.integers(1, VOCABULARY, offsets[-1]).astype(np.int32), offsets, lengths == 6)
    picture = rng.normal(0, 1, (n, 3)).astype(np.float32)
    picture[rng.random(n) >= pictured] = np.nan
    num_users, num_items = int(user.max()) + 1 + spare, int(item.max()) + 1 + spare
    return Events(
        user, item, timestamp, rating, tokens if reviewed else None, {"picture": picture}, num_users, num_items
    )


def _drex(events, sizes=None, **options):
    """Return DReX over a stream and nonzero parameters; it has every modality (keywords change that) and no dropout."""
    network = {"state_size": 4, "feature_size": 5, "hidden_size": 6, "text_width": 4, "text_dropout": 0.0}
    network |= {"vocabulary_size": 0 if events.tokens is None else VOCABULARY}
    network |= {"vector_modalities": tuple(sorted(events.vectors)), "ranking": bool(options.get("ranking_weight"))}
    given = {"rating_mean": 3.2, "rating_deviation": 1.3, "offset_dropout": 0.0, "negatives": 4}
    given |= {"packing": window.Packing(width=options.pop("width", 3))}
    for name, value in options.items():
        (network if name in NETWORK_FIELDS else given)[name] = value
    bias = RunningBias(3.2, 2.0, 1.5)
    stream = WindowStream(DReXOptions(NetworkOptions(**network), bias, **given), events, sizes or (len(events), 0, 0))
    rng = np.random.default_rng(1)  # `init` would take seconds to compile its many draws
    params = jax.eval_shape(stream.init, jax.random.key(0))
    return stream, jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.4, leaf.shape), leaf.dtype), params)


@pytest.fixture(scope="session")
def make_events():
    return _events


@pytest.fixture(scope="session")
def make_drex():
    return _drex


def _replay(stream, params):
    """Return the states after the last part, and the concatenated traces of train, validation and test."""
    carry, traces = stream.start(params), []
    for segment in stream.segments():
        if len(segment):
            carry, trace = stream.observe(params, carry, segment)
            traces.append(trace)
    return carry, jax.tree.map(lambda *parts: np.concatenate(parts), *traces)


@pytest.fixture(scope="session")
def replay():
    return _replay


def _train_losses(stream, params, epoch=0, key=0):
    """Return [(loss, sums, gradient)] of an epoch's windows, all with these parameters, and the states after it."""
    step = jax.jit(jax.value_and_grad(stream.model.loss, has_aux=True))
    carry, results = stream.start(params), []
    for batch in stream.batches(epoch):
        (loss, (carry, sums)), gradient = step(params, carry, batch, jax.random.key(key))
        results.append((loss, sums, gradient))
    assert step._cache_size() == 1  # all windows have one shape, so there is one program
    return results, carry


@pytest.fixture(scope="session")
def train_losses():
    return _train_losses


# Rankers that learn from pairs and read item features


def _items(modalities, missing=0.3, n=60):
    """Return (events, sizes) whose items have the given modalities, 5 wide, each missing with probability `missing`."""
    events = _events(n=n, users=9, items=11)
    rng = np.random.default_rng(1)
    vectors = {}
    for name in modalities:
        vectors[name] = rng.normal(0, 1, (events.num_items, 5)).astype(np.float32)
        vectors[name][rng.random(events.num_items) < missing] = np.nan
    return dataclasses.replace(events, item_vectors=vectors), (n - 8, 4, 4)


@pytest.fixture(scope="session")
def make_items():
    return _items


def _permuted(events, order):
    """Return the events with renumbered items: the new item k is the old item order[k]."""
    vectors = {name: values[order] for name, values in events.item_vectors.items()}
    return dataclasses.replace(events, item=np.argsort(order)[events.item].astype(np.int32), item_vectors=vectors)


@pytest.fixture(scope="session")
def permuted():
    return _permuted


def _twin_graphs(events, sizes, table, layers):
    """Compute LightGCN's rows of users and items by dense products."""
    matrix = np.zeros((len(table), len(table)))
    user, item = events.user[: sizes[0]], events.num_users + events.item[: sizes[0]]
    matrix[user, item] = matrix[item, user] = 1
    scale = 1 / np.sqrt(np.maximum(matrix.sum(1), 1))
    powers = [np.asarray(table, np.float64)]
    for _ in range(layers):
        powers.append(scale[:, None] * matrix * scale @ powers[-1])
    return np.split(sum(powers) / len(powers), [events.num_users])


@pytest.fixture(scope="session")
def twin_graphs():
    return _twin_graphs


def _first_loss(stream, params):
    """Return the loss and the figures of an epoch's first batch, and its pairs with their negatives."""
    batch, key = next(stream.batches(0)), jax.random.key(4)
    loss, (_, figures) = jax.jit(stream.model.loss)(params, stream.renew(params, None, 0, key), batch, key)
    seen = batch.constants[0]
    negative = draw_negatives(jax.random.split(key)[0], seen, batch.user, stream.model.sizes.train_items)
    pairs = Pairs(*(np.asarray(each)[batch.valid] for each in (batch.user, batch.item, negative, batch.valid)))
    train = set(zip(stream.pairs.user, stream.pairs.item, strict=True))
    assert not set(zip(pairs.user, pairs.negative, strict=True)) & train
    return float(loss), figures, pairs


@pytest.fixture(scope="session")
def first_loss():
    return _first_loss


def _fitted(stream, epochs, devices=None, optimizer=None):
    """Train for some epochs. Return the loss of each step, and the last parameters."""
    trainer = Trainer(stream, optimizer or optax.adam(0.02), [5], devices or Devices("none", 1))
    state = trainer.begin([stream.init(jax.random.key(5))])
    trainer.compile(state)
    losses = []
    for epoch in range(epochs):
        state = trainer.begin_epoch(state, epoch)
        for chunk in trainer.batches(epoch, 0):
            state, figures = trainer.step(state, chunk, len(losses))
            losses += np.asarray(figures["loss"])[: chunk.updates].tolist()
    return losses, jax.device_get(state.params)


@pytest.fixture(scope="session")
def fitted():
    return _fitted


@pytest.fixture(scope="session")
def same_on_devices():
    """Return a function that asserts that training on one device and on four devices agree up to rounding."""

    def check(make):
        if jax.device_count() < 4:
            pytest.skip("fewer than 4 devices")
        alone = _fitted(make(4), 2, optimizer=optax.sgd(0.3))
        found = _fitted(make(4), 2, Devices("shard_map", 4), optax.sgd(0.3))
        np.testing.assert_allclose(found[0], alone[0], rtol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found[1], alone[1])

    return check

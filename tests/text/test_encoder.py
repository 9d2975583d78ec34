"""The review encoder, compared with a NumPy reference that encodes one text at a time, and its gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from drex_jax.text import batching
from drex_jax.text import encoder as text_encoder

VOCABULARY, WIDTH, FEATURES = 50, 8, 5
LENGTHS = [5, 0, 17, 1, 16, 33, 2, 40, 3, 12]


@pytest.fixture(scope="module")
def encoder():
    return text_encoder.TextEncoder(VOCABULARY, WIDTH, FEATURES, dropout=0.3)


@pytest.fixture(scope="module")
def params(encoder):
    params = text_encoder.init(encoder, jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))  # no parameter left at zero
    return tree.unflatten([leaf + 0.3 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)])


@pytest.fixture(scope="module")
def texts():
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)])
    return np.random.default_rng(0).integers(1, VOCABULARY, offsets[-1]).astype(np.int32), offsets


def batch_of(texts, lengths, budget):
    ids, offsets = texts
    rows = np.arange(len(LENGTHS))
    return batching.plan(ids, offsets, rows, batching.fit([np.diff(offsets)], lengths, budget))


def twin(params, ids):
    """Compute (feature [F], attention [T]) of one text with loops in float64."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    x = np.stack([p["embedding"][token] for token in ids])
    h = np.empty_like(x)
    for t in range(len(ids)):
        context = p["convolution_bias"] + x[t] * p["convolution"][1]
        if t > 0:
            context = context + x[t - 1] * p["convolution"][0]
        if t + 1 < len(ids):
            context = context + x[t + 1] * p["convolution"][2]
        h[t] = x[t] + np.maximum(context, 0)
    score = np.array([np.tanh(row @ p["key"]["kernel"] + p["key"]["bias"]) @ p["query"] for row in h])
    attention = np.exp(score) / np.exp(score).sum()
    pooled = attention @ h
    normal = (pooled - pooled.mean()) / np.sqrt(pooled.var() + 1e-6) * p["norm"]["scale"] + p["norm"]["bias"]
    return normal @ p["out"]["kernel"] + p["out"]["bias"], attention


@pytest.mark.parametrize(("lengths", "budget"), [((40,), 4096), ((16, 32, 40), 64), ((4, 8, 16, 64), 10)])
def test_features_and_attention_equal_the_twin_whatever_the_buckets(encoder, params, texts, lengths, budget):
    ids, offsets = texts
    batch = batch_of(texts, lengths, budget)
    features = np.asarray(text_encoder.encode(encoder, params, batch, len(LENGTHS)))
    weights = text_encoder.attention(encoder, params, batch)
    flat = batching.unplan([np.asarray(w) for w in weights], batch, offsets, np.arange(len(LENGTHS)), len(ids))
    for row, length in enumerate(LENGTHS):
        if length:
            feature, attention = twin(params, ids[offsets[row] : offsets[row + 1]])
            np.testing.assert_allclose(features[row], feature, rtol=2e-5, atol=2e-5)  # float32 sums of 40 terms
            np.testing.assert_allclose(flat[offsets[row] : offsets[row + 1]], attention, rtol=2e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(features[row], 0)


def test_gradients_equal_plain_autodiff(encoder, params, texts):
    target = jax.random.normal(jax.random.key(3), (len(LENGTHS), FEATURES))
    batch = batch_of(texts, (16, 40), 48)
    whole = batch_of(texts, (40,), 4096)
    order = np.concatenate([whole.row[0][0], np.flatnonzero(np.array(LENGTHS) == 0)])

    def two_phase(params):
        return jnp.sum((text_encoder.encode(encoder, params, batch, len(LENGTHS)) - target) ** 2)

    def plain(params):
        features = text_encoder.encode_chunk(encoder, params, whole.ids[0][0])[0]
        padded = jnp.pad(features, ((0, len(LENGTHS) - len(features)), (0, 0)))
        return jnp.sum((padded - target[order]) ** 2)

    found, expected = jax.jit(jax.value_and_grad(two_phase))(params), jax.jit(jax.value_and_grad(plain))(params)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
        assert np.abs(b).max() > 0


def test_a_padded_row_is_finite_and_gives_no_gradient(encoder, params):
    ids = jnp.zeros((2, 16), jnp.int32)

    @jax.jit
    def loss(params):
        feature, attention = text_encoder.encode_chunk(encoder, params, ids)
        return jnp.sum(feature + 1) ** 2 + jnp.sum(attention), (feature, attention)

    gradient, (feature, attention) = jax.grad(loss, has_aux=True)(params)
    for leaf in [*jax.tree.leaves(gradient), feature, attention]:
        np.testing.assert_array_equal(leaf, 0)


def test_extreme_scores_do_not_overflow(encoder, params):
    ids = jnp.array([[1, 2, 3, 0], [4, 0, 0, 0]])
    large = {**params, "query": 1e4 * params["query"]}
    feature, attention = text_encoder.encode_chunk(encoder, large, ids)
    assert np.isfinite(feature).all()
    np.testing.assert_allclose(attention.sum(1), 1, rtol=1e-6)
    gradient = jax.jit(jax.grad(lambda p: text_encoder.encode_chunk(encoder, p, ids)[0].sum()))(large)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_dropout_follows_its_key_and_differs_between_chunks(encoder, params):
    ids = np.tile(np.arange(1, 17, dtype=np.int32), (6, 1))  # the same text six times, in three chunks
    batch = batching.TextBatch((ids.reshape(3, 2, 16),), (np.arange(6, dtype=np.int32).reshape(3, 2),))
    first = text_encoder.encode(encoder, params, batch, 6, jax.random.key(0))
    again = text_encoder.encode(encoder, params, batch, 6, jax.random.key(0))
    other = text_encoder.encode(encoder, params, batch, 6, jax.random.key(1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    assert len(np.unique(np.asarray(first), axis=0)) == 6
    without = text_encoder.encode(encoder, params, batch, 6)
    assert len(np.unique(np.asarray(without), axis=0)) == 1


def test_dropout_is_the_same_in_both_phases(encoder, params, texts):
    batch = batch_of(texts, (40,), 160)
    key = jax.random.key(5)

    @jax.jit
    def loss(scale):
        scaled = {**params, "query": params["query"] * scale}
        return jnp.sum(text_encoder.encode(encoder, scaled, batch, len(LENGTHS), key) ** 2)

    step = 1e-2
    numeric = (loss(1 + step) - loss(1 - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(loss)(1.0), numeric, rtol=2e-2)


def test_memory_of_the_gradient_does_not_grow_with_the_history(encoder, params):
    def temporary_bytes(chunks):
        ids = jax.ShapeDtypeStruct((chunks, 8, 32), jnp.int32)
        row = jax.ShapeDtypeStruct((chunks, 8), jnp.int32)

        def loss(params, ids, row):
            batch = batching.TextBatch((ids,), (row,))
            return jnp.sum(text_encoder.encode(encoder, params, batch, 8 * chunks) ** 2)

        memory = jax.jit(jax.grad(loss)).lower(params, ids, row).compile().memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    residuals = 8 * 32 * WIDTH * 4  # of one chunk's token vectors
    growth = (temporary_bytes(64) - temporary_bytes(4)) / 60
    assert growth < residuals / 4  # features in and out only


def test_a_sharded_batch_gives_the_same_gradients(encoder, params):
    devices = min(2, jax.device_count())
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    ids = np.random.default_rng(0).integers(1, VOCABULARY, (devices * 2, 4, 16)).astype(np.int32)
    row = np.tile(np.arange(8, dtype=np.int32).reshape(2, 4), (devices, 1))

    def local_loss(params, ids, row):
        return jnp.mean(text_encoder.encode(encoder, params, batching.TextBatch((ids,), (row,)), 8) ** 2)

    def sharded(params, ids, row):
        varying = jax.tree.map(lambda leaf: jax.lax.pcast(leaf, "data", to="varying"), params)
        return jax.lax.pmean(jax.grad(local_loss)(varying, ids, row), "data")

    spread = jax.jit(jax.shard_map(sharded, mesh=mesh, in_specs=(P(), P("data"), P("data")), out_specs=P()))
    local = jax.jit(jax.grad(local_loss))
    parts = [local(params, ids[2 * d : 2 * d + 2], row[:2]) for d in range(devices)]
    expected = jax.tree.map(lambda *leaves: sum(leaves) / devices, *parts)
    for a, b in zip(jax.tree.leaves(spread(params, ids, row)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_attention_learns_the_telling_token(encoder):
    """The encoder can overfit to whether token 7 occurs, and its attention is on that token then."""
    rng = np.random.default_rng(0)
    ids = rng.integers(8, VOCABULARY, (64, 16)).astype(np.int32)
    present = rng.random(64) < 0.5
    ids[present, rng.integers(0, 16, present.sum())] = 7
    batch = batching.TextBatch((ids.reshape(2, 32, 16),), (np.arange(64, dtype=np.int32).reshape(2, 32),))

    def loss(params):
        return jnp.mean((text_encoder.encode(encoder, params, batch, 64)[:, 0] - present) ** 2)

    @jax.jit
    def step(params, state):
        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    optimizer = optax.adam(1e-2)
    params = text_encoder.init(encoder, jax.random.key(2))
    state = optimizer.init(params)
    losses = []
    for _ in range(150):
        params, state, value = step(params, state)
        losses.append(float(value))
    assert losses[-1] < 0.1 * losses[0]
    weights = np.asarray(text_encoder.attention(encoder, params, batch)[0]).reshape(64, 16)
    assert weights[ids == 7].mean() > 2 * weights[ids != 7].mean()


def test_a_review_that_spells_padding_stays_one_piece_to_a_bert():
    seen = []

    class Spy(nn.Module):
        def __call__(self, ids, segments):
            seen.append(np.asarray(segments).tolist())
            return jnp.ones((*ids.shape, 4))

    encoder = text_encoder.TextEncoder(VOCABULARY, WIDTH, FEATURES, given_width=4, bert=Spy())
    encoder.init(jax.random.key(0), jnp.array([[2, 0, 3, 0, 0], [0, 0, 0, 0, 0]]))
    assert seen == [[[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]]]

"""Compare recursive cross-modal attention with NumPy loops, and check tanh's slope at the start of training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drex_jax.data import events, load
from drex_jax.data.events import build_events
from drex_jax.data.split import split_interactions
from drex_jax.models.crane import attention
from drex_jax.models.crane.model import Crane
from drex_jax.models.crane.settings import CraneSettings
from drex_jax.models.graph.propagation import propagate
from drex_jax.models.settings import RankerSettings


def slow_refine(rounds, contents, present, counted=None):
    """Refine one row, modality and round at a time in float64; rows without a modality are not read."""
    modality_count, n, size = contents.shape
    counted = np.ones(n, bool) if counted is None else counted
    readers = [[i for i in range(n) if present[m, i] and counted[i]] for m in range(modality_count)]

    def standardised(contents):
        rows = np.zeros((modality_count, n, size))
        for m, read in enumerate(readers):
            mean = np.mean([contents[m][i] for i in read], 0) if read else np.zeros(size)
            variance = np.mean([(contents[m][i] - mean) ** 2 for i in read], 0) if read else np.zeros(size)
            for i in np.flatnonzero(present[m]):
                rows[m, i] = (contents[m][i] - mean) / np.sqrt(variance + 1e-3)
        return rows

    contents = contents.astype(np.float64)
    for each in rounds:
        weights = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), each)
        joint = np.zeros((n, size))
        for m in range(modality_count):
            for i in np.flatnonzero(present[m]):
                joint[i] += contents[m, i] @ weights.joint[m * size : (m + 1) * size]
        hidden = np.zeros_like(contents)
        for m, read in enumerate(readers):
            total = np.zeros((size, size))
            for i in read:
                total += np.outer(contents[m, i], joint[i])
            total /= max(len(read), 1)
            matrix = np.tanh(weights.scale[m] * total / np.sqrt((total**2).mean() + 1e-12))
            for i in np.flatnonzero(present[m]):
                row = contents[m, i] @ weights.own[m] + joint[i] @ matrix.T @ weights.attended[m]
                hidden[m, i] = np.maximum(row, 0)
        contents = contents + standardised(hidden) @ weights.out
    return contents


def loud(rounds, seed):
    """Return rounds in which, unlike at the start, every weight matters, with different scales."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + rng.normal(0, 0.3, leaf.shape).astype(np.float32), rounds)


@pytest.mark.parametrize(("modality_count", "rounds"), [(1, 2), (2, 0), (2, 3), (3, 1)])
def test_refined_contents_are_those_of_a_slow_twin(modality_count, rounds):
    rng = np.random.default_rng(modality_count)
    present = rng.random((modality_count, 12)) < 0.7
    present[:, 0] = False  # a row without any modality
    if modality_count == 3:
        present[1], present[2] = np.arange(12) == 4, False  # a modality of a single row, and one of no row
    contents = np.where(present[:, :, None], rng.normal(0, 1, (modality_count, 12, 4)), 0).astype(np.float32)
    counted = rng.random(12) < 0.6
    weights = loud(attention.init_rounds(jax.random.key(0), rounds, modality_count, 4), 1)
    refine = jax.jit(attention.refine)
    assert len(weights) == rounds
    for rows in (None, counted):
        found = refine(weights, contents, present, rows)
        np.testing.assert_allclose(found, slow_refine(weights, contents, present, rows), rtol=1e-4, atol=1e-5)
        assert not np.asarray(found)[~present].any()
    assert (np.abs(found - contents).max() > 0.1) == (rounds > 0)


def test_standardise_is_over_the_rows_counted():
    rng = np.random.default_rng(0)
    present, contents = rng.random((2, 12)) < 0.7, rng.normal(3, 2, (2, 12, 4)).astype(np.float32)
    counted = present & (rng.random(12) < 0.7)
    found = np.asarray(attention.standardise(contents, present, attention.moments(contents, counted)))
    for rows, content, own, read in zip(found, contents, present, counted, strict=True):
        expected = (content - content[read].mean(0)) / np.sqrt(content[read].var(0) + 1e-3)
        np.testing.assert_allclose(rows[own], expected[own], rtol=1e-4, atol=1e-5)
        assert not rows[~own].any()


def test_gradients_are_finite_and_reach_every_weight():
    rng = np.random.default_rng(0)
    present = np.array([[True] * 6 + [False] * 3, [False] * 2 + [True] * 6 + [False]])  # the last row has none
    contents = np.where(present[:, :, None], rng.normal(0, 1, (2, 9, 4)), 0).astype(np.float32)
    weights = loud(attention.init_rounds(jax.random.key(0), 2, 2, 4), 1)

    @jax.jit
    @jax.grad
    def gradient(weights, contents):
        refined = attention.refine(weights, contents, present)
        return (attention.mean_direction(refined, present) ** 3).sum()

    for leaf in jax.tree.leaves(gradient(weights, contents)):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf).max() > 0
    nothing = gradient(weights, np.zeros_like(contents))  # every row of length zero
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(nothing))


def test_mean_direction_is_over_the_modalities_that_a_row_has():
    rng = np.random.default_rng(0)
    present = np.array([[True, True, False, False], [True, False, True, False]])
    contents = np.where(present[:, :, None], rng.normal(0, 1, (2, 4, 3)), 0).astype(np.float32)
    found = attention.mean_direction(contents, present)
    rows = [contents[0, 0] + contents[1, 0], contents[0, 1], contents[1, 2]]
    np.testing.assert_allclose(found[:3], [row / np.linalg.norm(row) for row in rows], rtol=1e-5)
    assert not np.asarray(found[3]).any()


@jax.jit
def slopes(rounds, contents, present):
    """Return the mean slope of tanh in each round and modality, [R, M]."""
    found = []
    for number, each in enumerate(rounds):
        before = attention.refine(rounds[:number], contents, present)
        joint = jnp.concatenate(list(before), axis=1) @ each.joint
        counts = present.sum(1)
        found.append([])
        for m, content in enumerate(before):
            matrix = attention.correlation(content, joint, each.scale[m], counts[m])
            found[-1].append((1 - matrix**2).mean())
    return found


@pytest.mark.parametrize("n", [1_000, 60_000])
def test_tanh_has_a_slope_at_the_start(n):
    """The slope is neither near 0 nor near 1, for few items and for many."""
    rng = np.random.default_rng(0)
    contents = rng.normal(0, 1, (2, n, 64)).astype(np.float32)
    found = np.array(slopes(attention.init_rounds(jax.random.key(0), 3, 2, 64), contents, np.ones((2, n), bool)))
    assert found.shape == (3, 2)
    assert found.min() > 0.3
    assert found.max() < 0.9  # correlations are not all near zero


def test_tanh_has_a_slope_on_real_features(real_data):
    """The slope is not near 0 for items and for users."""
    folder = real_data / "tiktok"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    stream = tiktok(folder)
    params, constants = jax.jit(stream.init)(jax.random.key(0)), stream.constants
    items = stream.model.projected(params, constants)
    liked = np.stack([propagate(constants.profiles.items, each) for each in items])
    count = constants.profiles.count
    sides = {
        "item": (items, constants.present),
        "user": (liked / np.maximum(count, 1)[:, :, None], count > 0),
    }
    for side, (contents, present) in sides.items():
        found = np.array(slopes(params[side], contents, present))
        assert found.shape == (3, 2)
        assert found.min() > 0.3, (side, found)


def tiktok(folder):
    interactions, _ = load.load_interactions(load.DataSettings(format="mmrec", path=str(folder)))
    parts = split_interactions(interactions, "given")
    ordered = events.in_learning_order(interactions, parts)
    sizes = (len(parts.train), len(parts.validation), len(parts.test))
    return Crane.stream(build_events(ordered, sizes, None), sizes, RankerSettings(size=64), CraneSettings(rounds=3))

"""Seeds that train together equal each seed alone, on one device and spread over groups of devices.

The tolerance is 1e-5 of the largest value of each array, for the reason that `test_devices` gives.
"""

import jax
import numpy as np
import optax
import pytest

from drex_jax.devices.mesh import Devices
from drex_jax.models.baselines.lightgcn import LightGCN
from drex_jax.models.baselines.matrix_factorisation import MatrixFactorisation, RatingStream
from drex_jax.models.drex import window
from drex_jax.models.settings import RankerSettings
from drex_jax.training.step import Trainer

SEEDS = [3, 11]
OPTIMIZER = optax.sgd(0.3)  # Adam would turn the rounding error of a zero gradient into a full step


def epoch(stream, seeds, devices, starts):
    """Train an epoch. Return each seed's (params, carry), and its figures."""
    trainer = Trainer(stream, OPTIMIZER, seeds, devices)
    state = trainer.begin(starts)
    trainer.compile(state)
    figures = []
    state = trainer.begin_epoch(state, 0)
    for number, chunk in enumerate(trainer.batches(0, 0)):
        state, sums = trainer.step(state, chunk, number * trainer.chunk)
        each = trainer.each(jax.device_get(sums))
        figures += [[{k: float(v[u]) for k, v in one.items()} for one in each] for u in range(chunk.updates)]
    each = [(s.params, s.carry) for s in trainer.each(jax.device_get(state))]
    return each, [list(of_seed) for of_seed in zip(*figures, strict=True)]


def assert_close(actual, expected):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=1e-5 * np.abs(e).max(initial=1.0))


@pytest.fixture(scope="module", params=["drex", "matrix_factorisation", "lightgcn"])
def stream(request, make_events, make_drex):
    events = make_events(n=61, users=9, items=11)
    if request.param == "matrix_factorisation":
        factors = MatrixFactorisation(3.0, 0.1, events.num_users, events.num_items, size=3)
        return RatingStream(factors, events, (61, 0, 0), batch_size=16, devices=4)
    if request.param == "lightgcn":  # each seed samples its own graph
        settings = RankerSettings(size=3, batch_size=16, edge_dropout=0.5)
        return LightGCN.stream(events, (61, 0, 0), settings, devices=4)
    options = {"ranking_weight": 0.7, "dropout": 0.3, "offset_dropout": 0.5, "offsets": True, "bptt_windows": 2}
    return make_drex(events, packing=window.Packing(width=8, devices=4), **options)[0]


@pytest.fixture(scope="module")
def alone(stream):
    starts = [stream.init(jax.random.key(seed)) for seed in SEEDS]
    each = [epoch(stream, [seed], Devices("none", 1), [start]) for seed, start in zip(SEEDS, starts, strict=True)]
    return starts, [state for (state,), _ in each], [figures for _, (figures,) in each]


@pytest.mark.parametrize(
    ("mapping", "count"),
    [
        ("none", 1),
        pytest.param("shard_map", 2, marks=pytest.mark.thorough),
        ("shard_map", 4),
        pytest.param("pmap", 4, marks=pytest.mark.thorough),
    ],
)
def test_seeds_together_are_each_as_alone(stream, alone, mapping, count):
    """With shard_map, two groups of one or two devices train a seed each; with pmap, one group of four trains both."""
    if jax.device_count() < count:
        pytest.skip(f"fewer than {count} devices")
    starts, states, figures = alone
    together, their_figures = epoch(stream, SEEDS, Devices(mapping, count), starts)
    assert_close(together, states)
    assert_close(their_figures, figures)
    assert np.abs(jax.tree.leaves(states[0])[0] - jax.tree.leaves(states[1])[0]).max() > 1e-3  # seeds differ


def test_groups_are_as_many_as_replicas_allow():
    if jax.device_count() < 8:
        pytest.skip("fewer than 8 devices")
    devices = Devices("shard_map", 8)
    assert [devices.spread_over(replicas).axis.size for replicas in (2, 3, 4, 6, 8, 16)] == [4, 8, 2, 4, 1, 1]
    assert Devices("pmap", 8).spread_over(8).axis.size == 8


def test_what_seeds_share_is_on_the_devices_once(make_events, make_drex):
    """Windows are constants that all seeds share; each seed has its own negatives."""
    stream, _ = make_drex(make_events(n=40), ranking_weight=1.0)
    trainer = Trainer(stream, OPTIMIZER, SEEDS, Devices("none", 1))
    ((batch, _),) = trainer.batches(0, 0)
    own = next(stream.with_seed(SEEDS[1]).batches(0))
    assert batch.window.rating.shape == own.window.rating.shape
    assert batch.negatives.state.shape == (2, *own.negatives.state.shape)
    np.testing.assert_array_equal(batch.negatives.state[1], own.negatives.state)

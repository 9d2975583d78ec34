"""Models over one device, eight by shard_map and eight by pmap: the same steps, the same evaluation.

Steps are compared to 1e-5 of the largest value of each array: all of them are sums of float32 products, which
devices add up in another order, and that moves their last digits (measured: at most 2.3e-6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from drex_jax.devices.mesh import Devices
from drex_jax.evaluation.evaluator import EvaluationOptions, Evaluator
from drex_jax.models.baselines.matrix_factorisation import MatrixFactorisation, RatingStream
from drex_jax.models.drex import window
from drex_jax.runs.selection import Selection
from drex_jax.training.step import State, training_step

DEVICES = 8
MAPPINGS = (("none", 1), ("shard_map", DEVICES), ("pmap", DEVICES))
TOLERANCE = 1e-5
ZERO = 1e-6  # a gradient below is what rounding leaves of zero: a user's constant cancels in a ranking loss

pytestmark = pytest.mark.skipif(jax.device_count() < DEVICES, reason=f"fewer than {DEVICES} devices")


def close(actual: Any, expected: Any) -> float:
    """Assert that trees agree, relative to the largest value of each leaf; return the largest difference."""
    (leaves, tree), (others, shape) = jax.tree.flatten(actual), jax.tree.flatten(expected)
    assert tree == shape
    worst = 0.0
    for a, b in zip(map(np.asarray, leaves), map(np.asarray, others), strict=True):
        assert a.shape == b.shape
        assert np.isfinite(a).all()
        if max(np.abs(a).max(initial=0), np.abs(b).max(initial=0)) > ZERO:
            worst = max(worst, float(np.abs(a - b).max() / np.abs(b).max()))
    assert worst <= TOLERANCE
    return worst


def recording() -> optax.GradientTransformation:
    """Gradient descent whose state is the gradient before clipping, so that a test can read it."""
    keep = optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params), lambda gradient, _, params=None: (gradient, gradient)
    )
    return optax.chain(keep, optax.clip_by_global_norm(1.0), optax.sgd(0.5))


def stepped(stream: Any, params: Any, devices: Devices, optimizer: optax.GradientTransformation) -> list[Any]:
    """Return [(state, metrics)] after each training step of an epoch."""
    step = devices.compile(training_step(stream.model, optimizer))
    state = devices.place(State(params, optimizer.init(params), stream.start(params), params))
    results = []
    for number, batch in enumerate(devices.feed(stream.batches(0))):
        state, figures = step(state, batch, np.uint32(7), np.int32(number))
        results.append(jax.tree.map(np.asarray, (state, figures)))
    return results


EVERYTHING = {"offsets": True, "residual": True, "rating_weight": 1.0, "ranking_weight": 0.7}
MODELS = {
    "texts": {**EVERYTHING, "ranking_loss": "sampled_softmax"},
    "mlp": {**EVERYTHING, "ranking_loss": "bpr", "head": "mlp"},
    "ratings": {"offsets": False, "vector_modalities": (), "partner": False},
}
Make = Callable[..., tuple[Any, Any]]


@pytest.fixture(scope="module")
def make(make_events: Callable[..., Any], make_drex: Callable[..., Any]) -> Make:
    """Build (model, params) by name, from MODELS or `matrix_factorisation`, with two windows for eight devices."""
    events = {reviewed: make_events(n=61, users=9, items=11, reviewed=0.6 * reviewed) for reviewed in (False, True)}

    def made(name: str, split: bool = False, **changes: Any) -> tuple[Any, Any]:
        if name == "matrix_factorisation":
            own = events[False]
            model = MatrixFactorisation(3.0, 0.1, own.num_users, own.num_items, size=3)
            stream = RatingStream(model, own, (61, 0, 0), batch_size=20, devices=DEVICES)
            return stream, stream.init(jax.random.key(0))
        packing = window.Packing(width=8, devices=DEVICES, split=split)
        options = {"bptt_windows": 2, "packing": packing} | MODELS[name] | changes
        return make_drex(events[name == "texts"], **options)

    return made


@pytest.mark.parametrize(
    ("name", "ways"),
    [
        ("texts", [("shard_map", True), ("pmap", False)]),
        pytest.param("mlp", [("shard_map", False), ("pmap", True)], marks=pytest.mark.thorough),
        pytest.param("ratings", [("pmap", True)], marks=pytest.mark.thorough),
        ("matrix_factorisation", [("shard_map", False), ("pmap", False)]),
    ],
)
def test_a_training_step_is_the_same_on_one_device_and_on_eight(
    make: Make, name: str, ways: list[tuple[str, bool]]
) -> None:
    """Loss, metrics, gradients, parameters and states agree after each step of an epoch."""
    expected = stepped(*make(name), Devices("none", 1), recording())
    assert len(expected) > 1
    seen = jax.tree.map(lambda *steps: max(np.abs(step).max() for step in steps), *(s.optimizer for s, _ in expected))
    zeros = [jax.tree_util.keystr(path) for path, most in jax.tree_util.tree_leaves_with_path(seen) if most <= ZERO]
    assert all("time_null" in path or "ranking_head" in path for path in zeros), zeros
    for mapping, split in ways:
        close(stepped(*make(name, split), Devices(mapping, DEVICES), recording()), expected)


def test_dropout_is_drawn_by_seed_and_not_by_device(make: Make) -> None:
    """Equal seeds give equal steps, bit by bit on the same devices; another seed gives another step."""
    stream, params = make("texts", dropout=0.5, offset_dropout=0.5, text_dropout=0.3)

    def first_step(devices: Devices, *seeds: int) -> list[Any]:
        step = devices.compile(training_step(stream.model, recording()))
        state = devices.place(State(params, recording().init(params), stream.start(params), params))
        batch = next(devices.feed(stream.batches(0)))
        return [jax.tree.map(np.asarray, step(state, batch, np.uint32(seed), np.int32(0))) for seed in seeds]

    found, again, other = first_step(Devices("shard_map", DEVICES), 7, 7, 8)
    jax.tree.map(np.testing.assert_array_equal, found, again)
    assert found[1]["loss"] != other[1]["loss"]
    (alone,) = first_step(Devices("none", 1), 7)
    close(found, alone)


@pytest.mark.parametrize(
    ("mapping", "users", "block"), [("shard_map", 9, 13), pytest.param("pmap", 4, 256, marks=pytest.mark.thorough)]
)
def test_evaluation_on_eight_devices_is_that_on_one(
    make_events: Callable[..., Any], make_drex: Callable[..., Any], mapping: str, users: int, block: int
) -> None:
    """Numbers of blocks and lists that are not divisible by eight, also fewer users than devices."""
    events = make_events(n=83, users=users, items=11, spare=0)
    sizes = (50, 14, 19)
    options = EvaluationOptions(cutoffs=(1, 3, 10), threshold=3.0, rating_range=(1.0, 5.0), block=block)
    changes = {"ranking_weight": 0.7, "packing": window.Packing(width=8, devices=DEVICES)}
    stream, params = make_drex(events, sizes, **changes)
    alone = Evaluator(stream, events, sizes, options)
    devices = Devices(mapping, DEVICES)
    stream = type(stream)(stream.model.options, events, sizes, devices.compile)
    everyone = Evaluator(stream, events, sizes, options, DEVICES, devices.compile)
    placed, selection = devices.place(params), Selection.of(params, "mse", 1.0, 1)
    names = set(alone.validation_metrics())
    assert everyone.validate(placed, names) == pytest.approx(alone.validate(params, names), abs=1e-5)
    expected, carry, _ = alone.evaluate_test(params, selection)
    found, after, _ = everyone.evaluate_test(placed, selection)
    assert set(expected["frozen"]) >= {"mse", "ndcg@3", "rated_items/ndcg@3"}
    for way, metrics in expected.items():
        assert found[way] == pytest.approx(metrics, abs=1e-5)
    close(after, carry)


@pytest.mark.parametrize(
    ("width", "split", "expected"), [(11, True, 16), (11, False, 11), (16, True, 16), (1, True, 8)]
)
def test_a_width_that_is_split_is_rounded_up_to_the_devices(
    make_events: Callable[..., Any], width: int, split: bool, expected: int
) -> None:
    events = make_events(n=50)
    packing = window.Packing(width, devices=DEVICES, split=split)
    packed = window.pack(events.user, events.item, [(0, 30), (30, 50)], packing)
    assert {packed.layout(number).lanes.shape[2] for number in (0, 1)} == {expected}
    assert packed.size == 32

"""Every implementation of the recurrence, compared with the equations and with one interaction at a time."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from scipy.special import expit

from drex_jax.devices.axis import ALONE, Axis
from drex_jax.models.drex import recurrence, schedule
from drex_jax.models.drex.recurrence import CellParams, Implementation, Layout, RecurrenceOptions

N, USERS, ITEMS, DRAWS = 24, 6, 5, 3
IDS = USERS + ITEMS
ROWS = IDS + 2 * 32  # with enough spare rows for the widest step
ROUNDING = 2e-5  # share of the largest value: float32 sums in another order, over chains of up to 24 updates
HUB = st.one_of(st.just(0), st.integers(0, ITEMS - 1))
STREAMS = st.one_of(st.integers(0, N), st.just(N)).flatmap(
    lambda n: st.lists(st.tuples(st.one_of(HUB, st.just(USERS - 1)), HUB), min_size=n, max_size=n)
)
ONE_CHAIN = [(0, 0)] * N

SEQUENTIAL, AUTODIFF, BLOCKED = (
    RecurrenceOptions(way) for way in (Implementation.SEQUENTIAL, Implementation.AUTODIFF, Implementation.BLOCKED)
)


def way_name(value):
    return value.implementation.value if isinstance(value, RecurrenceOptions) else str(value)


EACH = pytest.mark.parametrize("options", [SEQUENTIAL, AUTODIFF, BLOCKED], ids=way_name)


class Parameters(NamedTuple):
    """All differentiable inputs: cells, `Weights.features` and `bias`, the table [R, D], features [N, F]."""

    user: CellParams
    item: CellParams
    projection: Any
    bias: Any
    table: Any
    features: Any


class Stream(NamedTuple):
    """The interactions that have a lane, in time order: their numbers, users and items, int [M] each."""

    events: np.ndarray
    user: np.ndarray
    item: np.ndarray


class Readings(NamedTuple):
    """The inputs of a loss: validity [N], negatives with their states [N, DRAWS], weights [N, 2, D]."""

    stands: np.ndarray
    state: np.ndarray
    valid: np.ndarray
    weights: np.ndarray


def numbers(seed, D=4, F=3):
    """Return parameters without zeros."""
    rng = np.random.default_rng(seed)
    shapes = ((F, 6 * D), (6 * D,), (ROWS, D), (N, F))
    cells = [CellParams(*rng.normal(0, 1.4 / np.sqrt(D), (2, D, 3 * D)).astype(np.float32)) for _ in range(2)]
    return Parameters(*cells, *(rng.normal(0, 0.8, shape).astype(np.float32) for shape in shapes))


def stream_of(pairs, seed=0):
    """Return a stream of these (user, item) pairs as M of a window's N interactions; the others are padding."""
    events = np.sort(np.random.default_rng(seed).choice(N, len(pairs), replace=False))
    user, item = np.array(pairs, np.int32).reshape(-1, 2).T
    return Stream(events, user, item)


def layout_of(stream, width, blocks, steps, seed=None):
    """Return the layout of the schedule in the first steps; with a seed, steps, lanes and unused slots are random."""
    packed = schedule.build_schedule(stream.user, stream.item, width)
    total = blocks * steps
    lanes, slots = np.full((total, width), len(stream.events)), np.zeros(N, np.int32)
    if seed is None:
        lanes[: packed.steps] = packed.events()
    else:
        rng = np.random.default_rng(seed)
        lanes[np.sort(rng.choice(total, packed.steps, replace=False))] = packed.events()
        lanes = rng.permuted(lanes, axis=1)
        slots = rng.integers(0, total * width, N).astype(np.int32)
    spare = IDS + 2 * np.arange(width)
    empty = lanes == len(stream.events)
    user, item = (np.append(ids, 0)[lanes] for ids in (stream.user, stream.item))
    rows = np.stack([np.where(empty, spare, user), np.where(empty, spare + 1, item + USERS)], -1).astype(np.int32)
    lanes = np.append(stream.events, N)[lanes].astype(np.int32)
    places = np.flatnonzero(lanes < N)
    slots[lanes.reshape(-1)[places]] = places
    return Layout(lanes.reshape(blocks, steps, width), rows.reshape(blocks, steps, width, 2), slots)


def readings_of(stream, seed, D=4):
    """Draw random negatives; the state of each is that before its next interaction, or after the last one."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, ITEMS, (N, DRAWS))
    state, valid = N + drawn, np.zeros((N, DRAWS), bool)
    for event, item in zip(stream.events, stream.item, strict=True):
        for draw, negative in enumerate(drawn[event]):
            later = stream.events[(stream.events >= event) & (stream.item == negative)]
            state[event, draw] = later[0] if len(later) else N + negative
            valid[event, draw] = negative != item
    stands = np.isin(np.arange(N), stream.events)
    return Readings(stands, state.astype(np.int32), valid, rng.normal(0, 1, (N, 2, D)).astype(np.float32))


def textbook(parameters, stream):
    """Compute the module's equations one interaction at a time in float64: (table [U + I, D], before [N, 2, D])."""
    user_cell, item_cell, projection, bias, table, features = jax.tree.map(np.float64, parameters)
    D = table.shape[1]
    table, before = table[:IDS].copy(), np.zeros((N, 2, D))

    def update(state, other, x, cell):
        r, z, n = range(3)
        own, partner = (weights.reshape(D, 3, D) for weights in cell)
        gate_r = expit(x[r] + state @ own[:, r] + other @ partner[:, r])
        gate_z = expit(x[z] + state @ own[:, z] + other @ partner[:, z])
        candidate = np.tanh(x[n] + other @ partner[:, n] + gate_r * (state @ own[:, n]))
        return gate_z * state + (1 - gate_z) * candidate

    for event, user, item in zip(stream.events, stream.user, stream.item + USERS, strict=True):
        x = (features[event] @ projection + bias).reshape(3, 2, D)
        u, i = before[event] = table[[user, item]]
        table[user], table[item] = update(u, i, x[:, 0], user_cell), update(i, u, x[:, 1], item_cell)
    return table, before


def states(parameters, readings, layout, options):
    """Return (table [U + I, D], before [N, 2, D], with zeros for padding)."""
    fused = recurrence.fused_weights(parameters.user, parameters.item)
    weights = recurrence.Weights(parameters.projection, parameters.bias, fused)
    after, before = recurrence.refine(weights, parameters.table, parameters.features, layout, options)
    return after[:IDS], jnp.where(readings.stands[:, None, None], before, 0)


def losses(after, before, readings):
    """Return a loss for each interaction, [N], of its states and of its negatives' states."""
    moments = jnp.concatenate([before[:, 1], after[USERS:]])[readings.state]  # [N, DRAWS, D]
    users = before[:, :1]
    worse = (users * moments).sum(-1) - (users * before[:, 1:]).sum(-1)
    return jnp.where(readings.valid, jax.nn.softplus(worse), 0).sum(-1) + (before * readings.weights).sum((1, 2))


def loss_and_states(parameters, readings, layout, options, axis=ALONE):
    """Return one device's part of the loss, and all states."""
    after, before = states(parameters, readings, layout, options)
    return axis.shard(losses(after, before, readings)).sum() + axis.only_on_first_device((after**2).sum()), (
        after,
        before,
    )


VALUE_AND_GRADIENT = jax.jit(jax.value_and_grad(loss_and_states, has_aux=True), static_argnames="options")


def one_by_one(parameters, readings, stream):
    """Return `VALUE_AND_GRADIENT` of `sequential`, always from a layout of the same shape."""
    return VALUE_AND_GRADIENT(parameters, readings, layout_of(stream, 1, 1, N), SEQUENTIAL)


def assert_close(actual, expected, tolerance=ROUNDING):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        a, e = np.asarray(a), np.asarray(e)
        assert a.shape == e.shape
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * max(1.0, np.abs(e).max(initial=0)))


@pytest.mark.parametrize(
    ("options", "width", "blocks", "steps", "D", "F"),
    [
        (BLOCKED, 1, 5, 6, 4, 3),
        (BLOCKED, 2, 3, 9, 4, 3),
        (BLOCKED, 3, 24, 1, 4, 1),
        (BLOCKED, 8, 1, 24, 1, 3),
        (BLOCKED, 32, 4, 7, 4, 3),
        (AUTODIFF, 1, 5, 6, 4, 3),
        (AUTODIFF, 2, 3, 9, 4, 3),
        (AUTODIFF, 3, 2, 14, 1, 3),
        (AUTODIFF, 8, 4, 7, 4, 1),
        (AUTODIFF, 32, 4, 7, 4, 3),
        (SEQUENTIAL, 2, 3, 9, 4, 3),
    ],
    ids=way_name,
)
@settings(derandomize=True, deadline=None, max_examples=20)
@given(pairs=STREAMS, seed=st.integers(0, 1000), spread=st.booleans())
@example(pairs=[], seed=0, spread=True)
@example(pairs=[(2, 3)], seed=1, spread=True)
@example(pairs=ONE_CHAIN, seed=2, spread=True)
@example(pairs=[(0, k % ITEMS) for k in range(N)], seed=3, spread=False)  # one user
@example(pairs=[(k % USERS, 1) for k in range(9)], seed=4, spread=False)  # one item, and blocks with only empty lanes
def test_agrees_with_the_equations_and_one_by_one(options, width, blocks, steps, D, F, pairs, seed, spread):
    parameters, stream = numbers(seed, D, F), stream_of(pairs, seed)
    readings = readings_of(stream, seed, D)
    layout = layout_of(stream, width, blocks, steps, seed if spread else None)
    actual = VALUE_AND_GRADIENT(parameters, readings, layout, options)
    assert_close(actual, one_by_one(parameters, readings, stream))
    (_, seen), gradient = actual
    assert_close(seen, textbook(parameters, stream))
    assert not np.asarray(gradient.features)[~readings.stands].any()  # padding has no gradient
    assert not np.asarray(gradient.table)[IDS:].any()  # nor have the rows of empty lanes


def test_the_comparison_can_fail():
    """If one interaction runs out of order, states and gradients differ by far more than rounding."""
    parameters, stream = numbers(0), stream_of(ONE_CHAIN)
    readings, layout = readings_of(stream, 0), layout_of(stream, 1, 5, 6)
    lanes, slots = layout.lanes.copy(), layout.slots.copy()
    lanes[3, [4, 5]], slots[[22, 23]] = lanes[3, [5, 4]], slots[[23, 22]]
    expected = one_by_one(parameters, readings, stream)
    assert_close(VALUE_AND_GRADIENT(parameters, readings, layout, BLOCKED), expected)
    wrong = VALUE_AND_GRADIENT(parameters, readings, layout._replace(lanes=lanes, slots=slots), BLOCKED)
    for actual, right in zip(jax.tree.leaves(wrong), jax.tree.leaves(expected), strict=True):
        with pytest.raises(AssertionError):
            assert_close(actual, right, tolerance=100 * ROUNDING)


def test_the_gradient_is_the_equations_own():
    """Every partial derivative equals central differences of the equations in float64, for random cotangents."""
    stream, rng = stream_of([(0, 0), (1, 0), (0, 1), (1, 1), (0, 0), (2, 2), (2, 0)]), np.random.default_rng(0)
    parameters = numbers(0, D=2)
    layout, readings = layout_of(stream, 2, 3, 9, seed=0), readings_of(stream, 0, D=2)
    cotangents = tuple(rng.normal(size=shape).astype(np.float32) for shape in ((IDS, 2), (N, 2, 2)))

    @jax.jit
    def pulled(parameters, cotangents):
        return jax.vjp(lambda parameters: states(parameters, readings, layout, BLOCKED), parameters)[1](cotangents)[0]

    def read():
        return sum((c * result).sum() for c, result in zip(cotangents, textbook(exact, stream), strict=True))

    exact, step = jax.tree.map(np.float64, parameters), 1e-5  # the error of the differences is about 1e-10
    gradient = pulled(parameters, cotangents)
    for leaf, actual in zip(jax.tree.leaves(exact), jax.tree.leaves(gradient), strict=True):
        expected = np.zeros(leaf.shape)
        for place in np.ndindex(leaf.shape):
            value = leaf[place]
            leaf[place] = value + step
            above = read()
            leaf[place] = value - step
            expected[place] = (above - read()) / (2 * step)
            leaf[place] = value
        assert np.abs(expected).max() > 0.01
        assert_close(actual, expected)


@EACH
def test_bfloat16_products(options):
    """With bfloat16 products, results differ by less than 1% of the largest value, and states are not rounded."""
    parameters, stream = numbers(5), stream_of([(k % USERS, k * k % ITEMS) for k in range(N)])
    readings, layout = readings_of(stream, 5), layout_of(stream, 2, 3, 9)
    (loss, exact), exact_gradient = one_by_one(parameters, readings, stream)
    rounded_options = options._replace(products="bfloat16")
    (rounded_loss, rounded), gradient = VALUE_AND_GRADIENT(parameters, readings, layout, rounded_options)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves((rounded, gradient)))
    assert_close((rounded_loss, rounded), (loss, exact), tolerance=0.02)
    assert_close(gradient, exact_gradient, tolerance=0.03)
    assert np.abs(rounded[0] - exact[0]).max() > 10 * ROUNDING  # the option does something


def test_auto_is_blocked_and_the_others_are_themselves():
    assert [way.resolve() for way in Implementation] == [Implementation.BLOCKED, *list(Implementation)[1:]]
    parameters, stream = numbers(6), stream_of(ONE_CHAIN)
    readings, layout = readings_of(stream, 6), layout_of(stream, 1, 5, 6)
    auto, blocked, autodiff = (
        VALUE_AND_GRADIENT.lower(parameters, readings, layout, way).as_text()
        for way in (RecurrenceOptions(), BLOCKED, AUTODIFF)
    )
    assert auto == blocked != autodiff


def test_other_values_compile_nothing_new():
    jitted = jax.jit(states, static_argnames="options")
    for seed, pairs in ((0, ONE_CHAIN), (1, [(1, 1), (2, 2)]), (2, [])):
        stream = stream_of(pairs, seed)
        jitted(numbers(seed), readings_of(stream, seed), layout_of(stream, 2, 3, 9, seed), RecurrenceOptions())
    assert jitted._cache_size() == 1


def test_fused_weights_hold_the_equations_and_nothing_else():
    parameters, D = numbers(1), 4
    cells = (parameters.user, parameters.item)
    fused = np.asarray(recurrence.fused_weights(*cells)).reshape(2, D, 4, 2, D)  # reads u or i; group; cell; out
    for side, cell in enumerate(cells):
        own, partner = cell.own.reshape(D, 3, D), cell.partner.reshape(D, 3, D)
        for gate in (0, 1):  # r, z
            np.testing.assert_array_equal(fused[side, :, gate, side], own[:, gate])
            np.testing.assert_array_equal(fused[1 - side, :, gate, side], partner[:, gate])
        np.testing.assert_array_equal(fused[1 - side, :, 2, side], partner[:, 2])
        np.testing.assert_array_equal(fused[side, :, 3, side], own[:, 2])
        assert not fused[side, :, 2, side].any()
        assert not fused[1 - side, :, 3, side].any()


def test_structural_zeros_give_no_gradient():
    """A cotangent on the zero blocks alone moves no parameter; on all blocks it moves each parameter once."""
    parameters, D = numbers(2), 4
    fused, pull = jax.vjp(recurrence.fused_weights, parameters.user, parameters.item)
    zeros = np.zeros((2, D, 4, 2, D), np.float32)
    for side in (0, 1):
        zeros[side, :, 2, side] = zeros[1 - side, :, 3, side] = 1.0
    for cotangent, expected in ((zeros.reshape(fused.shape), 0), (np.ones_like(fused), 1)):
        for gradient in jax.tree.leaves(pull(jnp.asarray(cotangent))):
            assert (np.asarray(gradient) == expected).all()


@EACH
def test_empty_lanes_touch_nothing(options):
    """Without interactions the states do not change at all, and only the table has a gradient."""
    parameters, stream = numbers(3), stream_of([])
    readings, layout = readings_of(stream, 3), layout_of(stream, 2, 3, 9, seed=3)
    (_, (after, before)), gradient = VALUE_AND_GRADIENT(parameters, readings, layout, options)
    np.testing.assert_array_equal(after, parameters.table[:IDS])
    assert not np.asarray(before).any()
    np.testing.assert_array_equal(gradient.table[:IDS], 2 * parameters.table[:IDS])
    for leaf in jax.tree.leaves(gradient._replace(table=0.0)):
        assert not np.asarray(leaf).any()


def test_residual_bytes_foresees_the_memory_of_a_pass():
    """The estimate is between half and twice the memory that the compiler needs."""
    n, blocks, steps, width, D, F = 4096, 16, 32, 16, 16, 12
    weights = recurrence.Weights(np.zeros((F, 6 * D)), np.zeros(6 * D), np.zeros((2 * D, 8 * D)))
    layout = Layout(np.zeros((blocks, steps, width)), np.zeros((blocks, steps, width, 2)), np.zeros(n))
    given = (weights, np.zeros((200, D)), np.zeros((n, F)), jax.tree.map(np.int32, layout))

    def loss(weights, table, features, layout):
        after, before = recurrence.refine(weights, table, features, layout, BLOCKED)
        return (after**2).sum() + (before**2).sum()

    memory = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(*given).compile().memory_analysis()
    foreseen = recurrence.residual_bytes(n, blocks * steps * width, D, F)
    assert foreseen / 2 < memory.temp_size_in_bytes < foreseen * 2


def on_devices(axis, mapping, program, *arguments):
    """Return the result of all devices of the axis for the same arguments; all devices return the same."""
    devices = jax.devices()[: axis.size]
    if mapping == "shard_map":
        mesh = Mesh(np.array(devices), (axis.name,))
        return jax.jit(jax.shard_map(program, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False))(*arguments)
    in_axes = (0, *[None] * len(arguments))  # pmap needs at least one mapped argument
    mapped = jax.pmap(lambda _, *arguments: program(*arguments), axis.name, in_axes=in_axes, devices=devices)
    results = mapped(np.arange(axis.size), *arguments)
    for leaf in jax.tree.leaves(results):
        assert (np.asarray(leaf) == np.asarray(leaf[:1])).all()
    return jax.tree.map(lambda leaf: leaf[0], results)


def program(axis, options, *arguments):
    """Run one device's program: encode its shard of the rows, all-gather, and sum the parts of loss and gradient."""

    def share(trained, inputs, readings, layout):
        parameters, encoder = trained
        encoded = axis.all_gather(jnp.tanh(axis.shard(inputs) @ encoder))
        parameters = parameters._replace(features=parameters.features + encoded)
        return loss_and_states(parameters, readings, layout, options, axis)

    (loss, seen), gradient = jax.value_and_grad(share, has_aux=True)(*arguments)
    return jax.tree.map(axis.psum, (loss, gradient)), seen


ONE_DEVICE = jax.jit(partial(program, ALONE, SEQUENTIAL))


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize(("mapping", "devices", "width"), [("shard_map", 8, 8), ("shard_map", 2, 6), ("pmap", 8, 8)])
def test_devices_agree_with_one(mapping, devices, width, split):
    """Split or replicated lanes give the loss and gradient of one device, up to the order of sums."""
    if jax.device_count() < devices:
        pytest.skip(f"fewer than {devices} devices")
    stream = stream_of([(k * k % USERS, k * k * k % ITEMS) for k in range(N - 3)], seed=7)
    readings, rng = readings_of(stream, 7), np.random.default_rng(7)
    inputs, encoder = (rng.normal(size=shape).astype(np.float32) for shape in ((N, 7), (7, 3)))
    given = ((numbers(7), encoder), inputs, readings)
    axis = Axis("devices", devices)
    spread = partial(program, axis, BLOCKED._replace(axis=axis if split else ALONE))
    actual = on_devices(axis, mapping, spread, *given, layout_of(stream, width, 3, 9, seed=7))
    assert_close(actual, ONE_DEVICE(*given, layout_of(stream, 1, 1, N)), tolerance=1e-5)


@pytest.mark.parametrize(
    ("options", "width", "reason"),
    [(BLOCKED, 12, r"\b12\b.*\b8 devices"), (SEQUENTIAL, 8, "sequential cannot"), (AUTODIFF, 8, "autodiff cannot")],
)
def test_what_cannot_be_split_is_refused(options, width, reason):
    stream, options = stream_of(ONE_CHAIN), options._replace(axis=Axis("devices", 8))
    with pytest.raises(ValueError, match=reason):
        states(numbers(8), readings_of(stream, 8), layout_of(stream, width, 1, N), options)

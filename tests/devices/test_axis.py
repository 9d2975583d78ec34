"""The axis methods under both mappings, compared with plain NumPy over the values of all devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from drex_jax.devices.axis import ALONE, Axis

DEVICES = 8
AXIS = Axis("devices", DEVICES)
FULL = np.random.default_rng(0).normal(size=(16, 24, 3)).astype(np.float32)
SHARES = np.random.default_rng(1).normal(size=(DEVICES, 16, 24, 3)).astype(np.float32)

pytestmark = pytest.mark.skipif(jax.device_count() < DEVICES, reason=f"fewer than {DEVICES} devices")


def by_shard_map(program, *arguments):
    mesh = Mesh(np.array(jax.devices()[:DEVICES]), (AXIS.name,))

    def device(*arguments):
        return jax.tree.map(lambda result: result[None], program(*arguments))

    mapped = jax.shard_map(device, mesh=mesh, in_specs=P(), out_specs=P(AXIS.name), check_vma=False)
    return jax.jit(mapped)(*arguments)


def by_pmap(program, *arguments):
    def device(_, *arguments):
        return program(*arguments)

    in_axes = (0, *[None] * len(arguments))  # pmap asks for at least one mapped argument
    return jax.pmap(device, axis_name=AXIS.name, in_axes=in_axes)(np.arange(DEVICES), *arguments)


@pytest.fixture(params=[by_shard_map, by_pmap])
def on_devices(request):
    """Run a program on every device with the same arguments; return the stacked results, [devices, ...]."""
    return request.param


def mine(stacked):
    """Inside a program, return this device's part of values [devices, ...]."""
    return jnp.asarray(stacked)[jax.lax.axis_index(AXIS.name)]


@pytest.mark.parametrize("dimension", [0, 1])
def test_own_rows_are_a_split_in_the_devices_order(on_devices, dimension):
    own = on_devices(lambda full: AXIS.shard(full, dimension), FULL)
    np.testing.assert_array_equal(own, np.stack(np.split(FULL, DEVICES, dimension)))


@pytest.mark.parametrize("dimension", [0, 1])
def test_everyone_puts_the_devices_rows_in_their_order(on_devices, dimension):
    shards = np.stack(np.split(FULL, DEVICES, dimension))
    everyone = on_devices(lambda shards: AXIS.all_gather(mine(shards), dimension), shards)
    np.testing.assert_array_equal(everyone, np.stack([FULL] * DEVICES))


@pytest.mark.parametrize("dimension", [0, 1])
def test_among_is_zero_at_the_others_rows(on_devices, dimension):
    shards = np.split(FULL, DEVICES, dimension)
    among = on_devices(lambda shards: AXIS.pad_to_global(mine(shards), dimension), np.stack(shards))
    expected = [
        np.concatenate([shards[k] * (k == device) for k in range(DEVICES)], dimension) for device in range(DEVICES)
    ]
    np.testing.assert_array_equal(among, np.stack(expected))


def test_total_is_the_sum_of_shares(on_devices):
    total = on_devices(lambda shares: AXIS.psum(mine(shares)), SHARES)
    expected = SHARES.astype(np.float64).sum(0)
    np.testing.assert_allclose(total, np.stack([expected] * DEVICES), atol=1e-5)  # sums of 8 float32


def test_once_is_the_first_devices(on_devices):
    once = on_devices(AXIS.only_on_first_device, FULL)
    np.testing.assert_array_equal(once, np.stack([FULL, *[np.zeros_like(FULL)] * (DEVICES - 1)]))


@pytest.mark.parametrize("dimension", [0, 1])
def test_the_gradient_of_everyone_is_the_own_part_of_all_cotangents(on_devices, dimension):
    """The gradient of all_gather: a device gets back the cotangents of its shard from all devices."""
    shards = np.stack(np.split(FULL, DEVICES, dimension))

    def program(shards, cotangents):
        _, pull = jax.vjp(lambda shard: AXIS.all_gather(shard, dimension), mine(shards))
        return pull(mine(cotangents))[0]

    expected = np.stack(np.split(SHARES.astype(np.float64).sum(0), DEVICES, dimension))
    np.testing.assert_allclose(on_devices(program, shards, SHARES), expected, atol=1e-5)  # sums of 8 float32


@pytest.mark.parametrize("dimension", [0, 1])
def test_own_and_among_are_transposes(on_devices, dimension):
    shards = np.stack(np.split(FULL, DEVICES, dimension))

    def program(shards, full, shares):
        _, pull_own = jax.vjp(lambda full: AXIS.shard(full, dimension), full)
        _, pull_among = jax.vjp(lambda shard: AXIS.pad_to_global(shard, dimension), mine(shards))
        return pull_own(mine(shards))[0], AXIS.pad_to_global(mine(shards), dimension), *pull_among(mine(shares))

    of_own, among, of_among = on_devices(program, shards, FULL, SHARES)
    np.testing.assert_array_equal(of_own, among)
    expected = [np.split(SHARES[device], DEVICES, dimension)[device] for device in range(DEVICES)]
    np.testing.assert_array_equal(of_among, np.stack(expected))


def test_shares_of_a_loss_have_shares_of_its_gradient(on_devices):
    """The contract of a model's program: rows are sharded, encoded apart, gathered, and summed once."""
    weights = np.random.default_rng(2).normal(size=(3, 2)).astype(np.float32)

    def loss(axis, weights, rows):
        encoded = axis.all_gather(jnp.tanh(axis.shard(rows) @ weights))  # [16, 2]
        each = (encoded * encoded[::-1]).sum(1)  # a row reads another device's
        return axis.shard(each).sum() + axis.only_on_first_device((encoded.mean(0) ** 2).sum())

    def program(weights, rows):
        return jax.tree.map(AXIS.psum, jax.value_and_grad(loss, argnums=(1, 2))(AXIS, weights, rows))

    actual = on_devices(program, weights, FULL[:, 0])
    expected = jax.value_and_grad(loss, argnums=(1, 2))(ALONE, weights, FULL[:, 0])
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, np.stack([e] * DEVICES), atol=1e-5)  # sums of 8 float32


def test_alone_everything_is_the_identity():
    for method in (ALONE.shard, ALONE.all_gather, ALONE.pad_to_global, ALONE.psum, ALONE.only_on_first_device):
        assert method(FULL) is FULL
    assert ALONE.shard(FULL, 1) is FULL


@pytest.mark.parametrize(("shape", "dimension"), [((12, 8), 0), ((8, 12), 1)])
def test_rows_that_the_devices_do_not_divide_are_refused(shape, dimension):
    with pytest.raises(ValueError, match=r"12 rows cannot be split evenly over 8 devices"):
        AXIS.shard(np.zeros(shape), dimension)

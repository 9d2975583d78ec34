"""Devices: their choice, compiled programs, and batches in order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from drex_jax.common.errors import UserError
from drex_jax.devices.mesh import Devices

DEVICES = 8
MAPPINGS = (("none", 1), ("shard_map", DEVICES), ("pmap", DEVICES))

pytestmark = pytest.mark.skipif(jax.device_count() < DEVICES, reason=f"fewer than {DEVICES} devices")


@pytest.mark.parametrize(
    ("mapping", "count", "message"),
    [
        ("shard_map", 99, r"devices\.count=99: JAX finds 8 here \(cpu\)"),
        ("pmap", 9, r"devices\.count=9: JAX finds 8"),
        ("none", 2, r"devices\.mapping=none runs on one device, not 2; use shard_map, or count=1"),
    ],
)
def test_devices_that_cannot_be_had(mapping: str, count: int, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Devices(mapping, count)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("mapping", "count", "expected"),
    [("none", 0, 1), ("none", 1, 1), ("shard_map", 0, 8), ("shard_map", 3, 3), ("pmap", 0, 8), ("pmap", 1, 1)],
)
def test_how_many_devices_there_are(mapping: str, count: int, expected: int) -> None:
    devices = Devices(mapping, count)
    total = devices.compile(lambda axis, x: (axis.psum(x), axis.all_gather(axis.shard(x))))
    summed, rows = total(np.arange(float(expected * 2)))
    assert len(devices) == devices.axis.size == expected
    np.testing.assert_array_equal(summed, np.arange(expected * 2) * expected)
    np.testing.assert_array_equal(rows, np.arange(expected * 2))
    memory = devices.memory()
    assert memory is not None
    assert memory > 0


@pytest.mark.parametrize("mapping", [mapping for mapping, _ in MAPPINGS])
def test_compiled_for_a_shape_is_the_same_function_and_refuses_others(mapping: str) -> None:
    devices = Devices(mapping, 1 if mapping == "none" else DEVICES)

    def program(axis: Any, tree: Any, factor: Any) -> Any:
        return jax.tree.map(lambda leaf: axis.psum(axis.shard(leaf).sum() * factor), tree)

    tree = {"a": np.arange(16.0, dtype=np.float32), "b": np.ones(8, np.float32)}
    compiled = devices.compile_for(program, devices.place(tree), np.float32(1))
    assert jax.tree.map(float, compiled(devices.place(tree), np.float32(3))) == {"a": 360.0, "b": 24.0}
    assert jax.tree.map(float, devices.compile(program)(tree, np.float32(3))) == {"a": 360.0, "b": 24.0}
    with pytest.raises((TypeError, ValueError)):
        compiled(devices.place(tree | {"b": np.ones(16, np.float32)}), np.float32(3))


# Feeding


def frozen(values: np.ndarray) -> np.ndarray:
    values.setflags(write=False)
    return values


@pytest.mark.parametrize(("mapping", "count"), MAPPINGS)
def test_feed_keeps_order_and_brings_constants_once(mapping: str, count: int) -> None:
    devices = Devices(mapping, count)
    constants = [frozen(np.full(3, k)) for k in range(4)]

    def epoch() -> list[Any]:
        batches = [{"constant": constant, "fresh": np.full(2, k), "none": None} for k, constant in enumerate(constants)]
        return list(devices.feed(iter(batches)))

    first, second = epoch(), epoch()
    for batches in (first, second):
        assert [int(batch["constant"][0]) for batch in batches] == [int(batch["fresh"][0]) for batch in batches]
        assert [int(batch["fresh"][0]) for batch in batches] == list(range(4))
        assert all(len(batch["constant"].sharding.device_set) == count for batch in batches)
    for a, b in zip(first, second, strict=True):
        assert a["constant"] is b["constant"]
        assert a["fresh"] is not b["fresh"]


def test_a_writable_array_may_change_between_epochs() -> None:
    devices, array = Devices("none", 1), np.zeros(2)
    (first,) = devices.feed(iter([array]))
    before = np.array(first)
    array += 1
    (second,) = devices.feed(iter([array]))
    np.testing.assert_array_equal((before, second), ([0, 0], [1, 1]))


def test_constants_beyond_the_room_are_brought_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drex_jax.devices.mesh.HOST_SHARE", 100)
    devices, small, large = Devices("none", 1), frozen(np.zeros(10)), frozen(np.zeros(20))
    first, second = (list(devices.feed(iter([small, large]))) for _ in range(2))
    assert first[0] is second[0]
    assert first[1] is not second[1]


def test_feed_passes_on_what_goes_wrong_with_a_batch() -> None:
    def batches() -> Iterator[np.ndarray]:
        yield np.zeros(1)
        raise OSError("the disk is gone")

    fed = Devices("none", 1).feed(batches())
    next(fed)
    with pytest.raises(OSError, match="the disk is gone"):
        next(fed)


def test_a_feed_of_nothing() -> None:
    assert list(Devices("none", 1).feed(iter(()))) == []


def test_a_feed_that_is_closed_early_leaves_no_thread() -> None:
    before = threading.active_count()
    fed = Devices("none", 1).feed(np.full(1, k) for k in range(1000))
    assert next(fed)[0] == 0
    assert threading.active_count() == before + 1
    fed.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert threading.active_count() == before


def test_the_next_batch_is_prepared_while_the_caller_has_one() -> None:
    """If a batch were made only on demand, nothing would set the event."""
    prepared = threading.Event()

    def batches() -> Iterator[np.ndarray]:
        yield np.zeros(1)
        prepared.set()
        yield np.ones(1)

    fed = Devices("none", 1).feed(batches())
    next(fed)
    assert prepared.wait(60)
    assert [batch[0] for batch in fed] == [1]

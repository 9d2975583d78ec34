"""The training step is lowered for TPU, CUDA and CPU on a machine that may have no accelerator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import pytest
from jax import export

from drex_jax.devices.mesh import Devices
from drex_jax.models.drex import recurrence, window
from drex_jax.training.step import State, training_step

DEVICES = 8
PLATFORMS = ("cpu", "cuda", "tpu")

pytestmark = pytest.mark.skipif(jax.device_count() < DEVICES, reason=f"fewer than {DEVICES} devices")


@pytest.mark.parametrize("products", ["float32", pytest.param("bfloat16", marks=pytest.mark.thorough)])
@pytest.mark.parametrize(
    ("mapping", "count"), [pytest.param("none", 1, marks=pytest.mark.thorough), ("shard_map", DEVICES)]
)
def test_the_training_step_is_lowered_for_every_platform(
    make_events: Callable[..., Any], make_drex: Callable[..., Any], mapping: str, count: int, products: str
) -> None:
    """One module of DReX with all options serves all platforms; called here, it gives the results of the step."""
    stream, params = make_drex(
        make_events(n=61, users=9, items=11, reviewed=0.6),
        bptt_windows=2,
        packing=window.Packing(width=8, devices=count, split=count > 1),
        implementation=recurrence.Implementation.BLOCKED,
        products=products,
        offsets=True,
        residual=True,
        ranking_weight=0.7,
        dropout=0.2,
        offset_dropout=0.5,
        text_dropout=0.1,
    )
    devices, optimizer = Devices(mapping, count), optax.adam(0.01)
    program = devices.compile(training_step(stream.model, optimizer))
    state = devices.place(State(params, optimizer.init(params), stream.start(params), params))
    batch = next(devices.feed(stream.batches(0)))
    arguments = (state, batch, *devices.place((np.uint32(3), np.int32(1))))

    exported = export.export(jax.jit(program), platforms=PLATFORMS)(*arguments)
    assert exported.platforms == PLATFORMS
    assert exported.nr_devices == count
    assert ("bf16" in exported.mlir_module()) == (products == "bfloat16")
    assert ("all_gather" in exported.mlir_module()) == (count > 1)
    if products == "float32":
        found = jax.tree.leaves(exported.call(*arguments))
        for a, b in zip(found, jax.tree.leaves(program(*arguments)), strict=True):
            a, b = np.asarray(a), np.asarray(b)
            assert np.isfinite(a).all()
            np.testing.assert_allclose(a, b, atol=1e-6 * max(np.abs(b).max(), 1e-6))  # the same program, compiled again

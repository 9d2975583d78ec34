"""Damage for which Orbax raises its own kinds of errors is reported as damage."""

from __future__ import annotations

import logging
import pathlib

import jax.numpy as jnp
import pytest

from drex_jax.runs.checkpoint import Checkpoints

ARRAYS = {"w": jnp.ones(3)}


def test_a_sharding_that_is_none(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, ARRAYS, {"step": step})
    file = tmp_path / "checkpoints" / "2" / "arrays" / "_sharding"
    content = file.read_bytes()
    assert b"SingleDeviceSharding" in content
    file.write_bytes(content.replace(b"SingleDeviceSharding", b"SingleDeviceSharting"))  # one bit
    with caplog.at_level(logging.WARNING), Checkpoints(tmp_path / "checkpoints") as checkpoints:
        found = checkpoints.restore(ARRAYS)
    assert found is not None
    assert found[0] == 1
    assert [each for each in caplog.messages if "checkpoint 2" in each]

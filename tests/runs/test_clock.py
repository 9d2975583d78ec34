"""Clocks that jump: no save is aborted by a wall-clock timeout."""

from __future__ import annotations

import itertools
import pathlib
import time

import jax.numpy as jnp
import numpy as np
import pytest

from drex_jax.runs.checkpoint import Checkpoints, load_model, save_model

FORTNIGHT = 1.2e6  # seconds: far beyond the patience that Orbax has by itself


def test_what_is_saved_while_the_clock_jumps_by_a_fortnight_at_every_look(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = {"w": jnp.arange(6.0).reshape(2, 3)}
    monkeypatch.setattr(time, "time", map(float, itertools.count(0, FORTNIGHT)).__next__)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, arrays, {"step": step})
    save_model(tmp_path / "model", arrays)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        found = checkpoints.restore(arrays)
    assert found is not None
    assert (found[0], found[2]) == (3, {"step": 3})
    np.testing.assert_array_equal(found[1]["w"], arrays["w"])
    np.testing.assert_array_equal(load_model(tmp_path / "model", arrays)["w"], arrays["w"])

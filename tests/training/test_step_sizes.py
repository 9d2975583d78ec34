"""The estimated memory of a training step is near the compiler's, and a run compiles its step once."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import pytest

from drex_jax.config.groups import TrainSettings
from drex_jax.devices.mesh import Devices
from drex_jax.evaluation.evaluator import EvaluationOptions, Evaluator
from drex_jax.models.drex import window
from drex_jax.models.drex.model import DReX
from drex_jax.training import loop
from drex_jax.training.step import State, training_step

DEVICES = 8

pytestmark = pytest.mark.skipif(jax.device_count() < DEVICES, reason=f"fewer than {DEVICES} devices")


@pytest.mark.parametrize(
    ("devices", "options"),
    [
        (1, {}),
        pytest.param(
            1, {"ranking_weight": 0.7, "negatives": 32, "head": "mlp", "hidden_size": 64}, marks=pytest.mark.thorough
        ),
        (DEVICES, {"ranking_weight": 0.7, "negatives": 32}),
    ],
)
def test_the_estimate_of_memory_is_near_what_the_compiler_plans(
    make_events: Callable[..., Any], make_drex: Callable[..., Any], devices: int, options: dict[str, Any]
) -> None:
    """The estimate is within a factor of 2.5, on windows so long that constants and parameters are negligible."""
    packing = window.Packing(options.get("width", 32), devices=devices, split=devices > 1)
    events = make_events(n=20_000, users=2000, items=1500, pictured=0.0, spare=20_000)
    stream, params = make_drex(events, **(options | {"state_size": 32, "feature_size": 32, "packing": packing}))
    optimizer = optax.adam(0.1)
    mapped = Devices("none" if devices == 1 else "shard_map", devices)
    program = jax.jit(mapped.compile(training_step(stream.model, optimizer)))
    state = State(params, optimizer.init(params), stream.start(params), params)
    planned = program.lower(state, next(stream.batches(0)), np.uint32(0), np.int32(0)).compile().memory_analysis()
    needed = planned.temp_size_in_bytes + planned.argument_size_in_bytes
    assert needed > 5e7
    assert needed / 2.5 < stream.step_bytes() < 2.5 * needed


def test_a_run_compiles_its_step_once_and_nothing_after_the_first_epoch(
    make_events: Callable[..., Any],
    make_drex: Callable[..., Any],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events, sizes = make_events(n=83, users=9, items=11), (50, 14, 19)
    devices = Devices("shard_map", DEVICES)
    packing = window.Packing(width=8, devices=DEVICES)
    stream, _ = make_drex(events, sizes, bptt_windows=3, ranking_weight=0.7, packing=packing)
    stream = type(stream)(stream.model.options, events, sizes, devices.compile)
    compiled: list[str] = []
    traced: list[int] = []
    by_epoch: list[int] = []
    loss, validate = DReX.loss, Evaluator.validate

    def counted_loss(*arguments: Any) -> Any:
        traced.append(1)
        return loss(*arguments)

    class Counted(Evaluator):
        def validate(self, params: Any, names: set[str]) -> dict[str, float]:
            metrics = validate(self, params, names)
            by_epoch.append(len(compiled))
            return metrics

    def note(event: str, seconds: float, **about: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(str(about.get("fun_name")))

    monkeypatch.setattr(DReX, "loss", counted_loss)
    options = EvaluationOptions(cutoffs=(3,), threshold=3.0, rating_range=(1.0, 5.0), block=16)
    evaluator = Counted(stream, events, sizes, options, DEVICES, devices.compile)
    how = TrainSettings(
        epochs=3, learning_rate=0.01, warmup_steps=2, patience=3, selection="ndcg@3", checkpoint_seconds=1e9
    )
    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        loop.fit(stream, evaluator, how, {0: tmp_path}, sizes[0], devices)
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
    assert len(traced) == 1
    assert len(by_epoch) == 3
    assert by_epoch[1] == by_epoch[2] > 0  # the copy of the best parameters is compiled after the first validation
    assert {name.rpartition("jit")[2] for name in compiled[by_epoch[1] :]} <= {"(slice)"}  # by the first checkpoint

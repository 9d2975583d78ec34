"""Runs on one and on eight devices give the same figures, continue each other, and report mistakes in one line."""

from __future__ import annotations

import json
import pathlib
import signal
from typing import Any

import jax
import pytest

from drex_jax import main
from drex_jax.common.errors import Stopped
from drex_jax.training.experiment import evaluate, train
from drex_jax.training.settings import base, settings_of
from drex_jax.training.step import Trainer

DEVICES = 8
ALONE = {"devices__mapping": "none", "devices__count": 1}
EVERYWHERE = {"devices__mapping": "shard_map", "devices__count": DEVICES}
BY_PMAP = {"devices__mapping": "pmap", "devices__count": DEVICES, "devices__recurrence": "split"}

pytestmark = pytest.mark.skipif(jax.device_count() < DEVICES, reason=f"fewer than {DEVICES} devices")


def tiny(**changes: Any) -> Any:
    """Return a configuration that trains in seconds; `model__head="mlp"` sets `model.head`."""
    settings = base()
    settings.data.synthetic.update(num_interactions=160, num_users=12, num_items=10, seed=1)
    settings.text.enabled = False
    settings.model.update(state_size=3, feature_size=3, negatives=3)
    settings.train.update(epochs=2, bptt_windows=2, warmup_steps=1)
    settings.schedule.width = 8  # divisible by eight devices
    settings.evaluate.update(block=32, cutoffs=(1, 5))
    settings.baselines = ()
    settings.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return settings


def agree(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Check that results agree: masks of dropout and order of learning are equal, sums are equal up to rounding."""
    for way, metrics in expected["test"].items():
        assert found["test"][way] == pytest.approx(metrics, abs=1e-4)
    assert found["selection"]["epoch"] == expected["selection"]["epoch"]
    assert found["schedule"] == expected["schedule"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return train(settings_of(tiny(**ALONE)), tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize("devices", [EVERYWHERE, pytest.param(BY_PMAP, marks=pytest.mark.thorough)])
def test_a_run_on_eight_devices_is_that_on_one(
    alone: dict[str, Any], tmp_path: pathlib.Path, devices: dict[str, Any]
) -> None:
    found = train(settings_of(tiny(**devices)), tmp_path)
    agree(found, alone)
    assert found["environment"]["devices"] == DEVICES
    assert found["environment"]["mapping"] == devices["devices__mapping"]
    assert found["environment"]["processes"] == 1
    assert alone["environment"]["devices"] == 1
    again = evaluate(tmp_path)
    assert again["test"] == found["test"]


@pytest.mark.parametrize(
    ("first", "second"), [(EVERYWHERE, ALONE), pytest.param(ALONE, EVERYWHERE, marks=pytest.mark.thorough)]
)
def test_a_run_goes_on_on_other_devices(
    alone: dict[str, Any],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    first: dict[str, Any],
    second: dict[str, Any],
) -> None:
    step = Trainer.step

    def interrupted(self: Trainer, state: Any, batch: Any, number: int) -> Any:
        if number == 2:
            signal.raise_signal(signal.SIGTERM)
        return step(self, state, batch, number)

    monkeypatch.setattr(Trainer, "step", interrupted)
    with pytest.raises(Stopped, match="SIGTERM at step 3"):
        train(settings_of(tiny(**first)), tmp_path)
    monkeypatch.undo()
    found = train(settings_of(tiny(**second)), tmp_path)
    agree(found, alone)
    assert found["timing"]["resumed_from"] == 3
    assert found["environment"]["devices"] == second["devices__count"]


@pytest.mark.thorough
def test_a_run_goes_from_one_device_to_eight_to_two(
    alone: dict[str, Any], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, stops = Trainer.step, [2, 1]

    def interrupted(self: Trainer, state: Any, batch: Any, number: int) -> Any:
        if stops and number == stops[-1]:
            stops.pop()
            signal.raise_signal(signal.SIGTERM)
        return step(self, state, batch, number)

    monkeypatch.setattr(Trainer, "step", interrupted)
    for devices in (ALONE, EVERYWHERE):
        with pytest.raises(Stopped, match="SIGTERM"):
            train(settings_of(tiny(**devices)), tmp_path)
    found = train(settings_of(tiny(**EVERYWHERE | {"devices__count": 2})), tmp_path)
    agree(found, alone)
    assert found["timing"]["resumed_from"] == 3
    assert found["environment"]["devices"] == 2


# The command line

EXPERIMENT = """
from drex_jax.training.settings import base


def get_config():
    settings = base()
    settings.data.synthetic.update(num_interactions=160, num_users=12, num_items=10, seed=1)
    settings.text.enabled = False
    settings.model.update(state_size=3, feature_size=3, negatives=3)
    settings.train.update(epochs=1, bptt_windows=2)
    settings.evaluate.update(block=32, cutoffs=(1, 5))
    settings.baselines = ()
    settings.devices.count = 1
    return settings
"""


@pytest.fixture
def experiment(tmp_path: pathlib.Path) -> str:
    file = tmp_path / "tiny.py"
    file.write_text(EXPERIMENT)
    return f"--config={file}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["devices.count=99"], "devices.count=99: JAX finds 8 here"),
        (["devices.mapping=none", "devices.count=2"], "devices.mapping=none runs on one device, not 2"),
        (["schedule.costs=nowhere.json"], "nowhere.json: the step costs cannot be read"),
        (["schedule.costs=GARBAGE"], "damaged; step costs are JSON"),
        (["schedule.costs=OTHER"], "has step costs of tpu v9, not of cpu or cpu"),
        (["schedule.implementation=sequential", "devices.recurrence=split"], "needs schedule.implementation=blocked"),
        (["schedule.width=2147483647"], "lanes, more than an int32 counts: take a narrower width or more windows"),
        (["schedule.width=99999999999"], "schedule.width is 99999999999; it must be a whole number"),
    ],
)
def test_what_cannot_work_is_told_in_one_line(
    experiment: str,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "garbage.json").write_text('{"cpu": ')
    (tmp_path / "other.json").write_text('{"tpu v9": {"source": "a guess", "state_sizes": {"64": {"1": 1.0}}}}')
    files = {"GARBAGE": str(tmp_path / "garbage.json"), "OTHER": str(tmp_path / "other.json")}
    flags = [f"--config.{field}={files.get(value, value)}" for field, value in (a.split("=") for a in arguments)]
    assert main.run(["main", experiment, f"--workdir={tmp_path / 'run'}", *flags]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.thorough
def test_more_windows_than_interactions_are_as_many_as_there_are(experiment: str, tmp_path: pathlib.Path) -> None:
    flags = ["--config.train.bptt_windows=1000", "--config.data.max_interactions=40", "--config.evaluate.ranking=false"]
    assert main.run(["main", experiment, f"--workdir={tmp_path / 'run'}", *flags]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["schedule"]["windows"] == results["split"]["sizes"]["train"] < 40


@pytest.mark.parametrize(
    ("users", "items", "times", "train_size"),
    [
        pytest.param([0] * 20, list(range(20)), range(20), None, marks=pytest.mark.thorough),
        pytest.param(list(range(20)), [0] * 20, range(20), None, marks=pytest.mark.thorough),
        ([0, 1, 0], [0, 0, 1], range(3), 1),
    ],
)
def test_streams_of_one_user_one_item_one_interaction(
    experiment: str,
    tmp_path: pathlib.Path,
    users: list[int],
    items: list[int],
    times: range,
    train_size: int | None,
) -> None:
    rows = [f"u{user},i{item},{1 + t % 5},{t * 90000}" for user, item, t in zip(users, items, times, strict=True)]
    (tmp_path / "table.csv").write_text("\n".join(["user,item,rating,timestamp", *rows, ""]))
    flags = ["data.format=table", f"data.path={tmp_path / 'table.csv'}", "data.columns.text=", "data.rating_min=1"]
    flags += ["data.rating_max=5", "devices.count=8", "split.validation=0.3", "split.test=0.3"]
    flags = [f"--config.{flag}" for flag in flags]
    assert main.run(["main", experiment, f"--workdir={tmp_path / 'run'}", *flags]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    sizes = results["split"]["sizes"]
    assert sum(sizes.values()) == len(rows)
    if train_size is not None:
        assert sizes["train"] == train_size
    assert results["test"]["prequential"]["mse"] >= 0

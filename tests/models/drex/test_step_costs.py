"""The table of step costs: the shipped one, a user's table, and invalid files."""

import json
import pathlib

import jax
import pytest

from drex_jax.common.errors import UserError
from drex_jax.models.drex import step_costs
from drex_jax.models.drex.schedule import StepCosts

TIMES = {"1": 10.0, "8": 20.5, "64": 90}


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    sizes = {"64": TIMES, "16": {"2": 3.0}}
    table = {
        "cpu": {"source": "by hand", "state_sizes": sizes},
        "TPU v4": {"source": "by hand", "state_sizes": {"16": {"256": 7.0}}},
    }
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(table))
    return path


def test_the_device_kind_comes_before_its_platform(file: pathlib.Path) -> None:
    assert step_costs.load("TPU v4", "cpu", 16, file).step == StepCosts((256,), (7.0,))
    found = step_costs.load("Some CPU", "cpu", 64, file)
    assert found.step == StepCosts((1, 8, 64), (10.0, 20.5, 90.0))
    assert found.source == f"{file}, cpu, state size 64: by hand"


@pytest.mark.parametrize(("state_size", "widths"), [(1, 1), (16, 1), (31, 1), (32, 1), (33, 3), (64, 3), (4096, 3)])
def test_the_nearest_state_size_is_nearest_by_ratio(file: pathlib.Path, state_size: int, widths: int) -> None:
    assert len(step_costs.load("cpu", "cpu", state_size, file).step.widths) == widths


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("state_size", [1, 16, 64, 100, 1024])
def test_every_platform_has_costs(platform: str, state_size: int) -> None:
    found = step_costs.load("a device that nobody knows", platform, state_size)
    assert found.step.widths[0] == 1
    assert ("estimated, not measured" in found.source) == (platform != "cpu")
    assert found.source.startswith(f"step_costs.json, {platform}, state size ")


def test_the_device_here_and_one_of_an_unknown_platform_have_costs() -> None:
    device = jax.devices()[0]
    assert step_costs.load(device.device_kind, device.platform, 64).step.microseconds
    assert step_costs.load("Device 9", "platform 9", 64).step == step_costs.load("gpu", "gpu", 64).step


def test_what_is_written_is_read_and_the_rest_stays(file: pathlib.Path) -> None:
    step_costs.write(file, "cpu", "measured", {32: StepCosts((1, 2), (1.234, 2.0)), 64: StepCosts((4,), (5.0,))})
    assert step_costs.load("cpu", "cpu", 32, file)[:2] == (
        StepCosts((1, 2), (1.23, 2.0)),
        f"{file}, cpu, state size 32: measured",
    )
    assert step_costs.load("cpu", "cpu", 64, file).step == StepCosts((4,), (5.0,))
    assert step_costs.load("cpu", "cpu", 16, file).step == StepCosts((2,), (3.0,))
    assert step_costs.load("TPU v4", "tpu", 16, file).step == StepCosts((256,), (7.0,))


def test_a_new_file_is_made(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "new" / "costs.json"
    step_costs.write(path, "TPU v5", "measured", {8: StepCosts((1,), (2.0,))})
    assert step_costs.load("TPU v5", "tpu", 8, path).step == StepCosts((1,), (2.0,))


def kind(**changes: object) -> str:
    return json.dumps({"cpu": {"source": "by hand", "state_sizes": {"64": TIMES}} | changes})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "3",
        '{"cpu": 3}',
        '{"cpu": {}}',
        kind(source=None),
        kind(state_sizes={}),
        kind(state_sizes=[64]),
        kind(state_sizes={"64": {}}),
        kind(state_sizes={"64": 3}),
        kind(state_sizes={"0": TIMES}),
        kind(state_sizes={"wide": TIMES}),
        kind(state_sizes={"64": {"0": 1.0}}),
        kind(state_sizes={"64": {"2": 1.0, "1": 2.0}}),
        kind(state_sizes={"64": {"1": -1.0}}),
        kind(state_sizes={"64": {"1": None}}),
        kind(state_sizes={"64": {"1": "long"}}),
        kind(state_sizes={"64": {"1": float("nan")}}),
    ],
)
def test_a_damaged_file_is_told_in_one_line_and_never_replaced(tmp_path: pathlib.Path, content: str) -> None:
    path = tmp_path / "costs.json"
    path.write_text(content)
    for attempt in (
        lambda: step_costs.load("cpu", "cpu", 64, path),
        lambda: step_costs.write(path, "cpu", "measured", {64: StepCosts((1,), (1.0,))}),
    ):
        with pytest.raises(UserError, match=r"costs\.json") as told:
            attempt()
        assert "\n" not in str(told.value)
    assert path.read_text() == content


def test_a_missing_file_and_one_without_the_device_are_named(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.json"):
        step_costs.load("cpu", "cpu", 64, tmp_path / "nowhere.json")
    with pytest.raises(UserError, match="of cpu, TPU v4, not of TPU v5 or tpu"):
        step_costs.load("TPU v5", "tpu", 64, file)


def test_a_file_that_cannot_be_written_is_named(file: pathlib.Path) -> None:
    with pytest.raises(UserError, match="cannot be"):
        step_costs.write(file / "costs.json", "cpu", "measured", {8: StepCosts((1,), (1.0,))})


def test_splitting_pays_where_it_saves_more_than_the_gathering_costs(file: pathlib.Path) -> None:
    step_costs.write(file, "cpu", "measured", {64: StepCosts((8, 64), (20.0, 90.0))})
    assert not step_costs.load("cpu", "cpu", 64, file).split_pays(64, 8)  # the cost of an all-gather is unknown
    table = json.loads(file.read_text())
    for gather, pays in ((69.0, True), (71.0, False)):
        table["cpu"]["gather_microseconds"] = gather
        file.write_text(json.dumps(table))
        assert step_costs.load("cpu", "cpu", 64, file).split_pays(64, 8) is pays
    step_costs.write(file, "cpu", "measured again", {64: StepCosts((8, 64), (20.0, 90.0))})
    assert step_costs.load("cpu", "cpu", 64, file).gather == 71.0
    table["cpu"]["gather_microseconds"] = -1
    file.write_text(json.dumps(table))
    with pytest.raises(UserError, match="gather_microseconds"):
        step_costs.load("cpu", "cpu", 64, file)

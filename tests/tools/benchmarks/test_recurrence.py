"""The command line of tools/profile.py: flags, table and JSON."""

import json
import pathlib

import pytest

from drex_jax.common.errors import UserError
from drex_jax.models.drex import schedule, step_costs
from drex_jax.models.drex.schedule import StepCosts
from tools.benchmarks import kernels, peaks, recurrence_speed
from tools.benchmarks import step_costs as measured


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "measure", lambda: peaks.Peaks(1e11, 1e10))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--interaction=5"], "--interaction=5"),
        (["--interactions=many"], "many"),
        (["--interactions=0"], "interactions"),
        (["--width=4,zero"], "zero"),
        (["--width=0"], "'0'"),
        (["--bptt_windows=-1"], "'-1'"),
        (["--implementations=fastest"], "critical_path"),
        (["--dtype=float16"], "bfloat16"),
        (["--peer=tensorflow"], "tensorflow"),
        (["--config=nowhere.py"], "nowhere.py"),
        (["--config=nowhere.py", "--seed=1"], "--seed"),
        (["--config.seed=1"], "--config"),
        (["somewhere"], "somewhere"),
        (["--costs=nowhere.json"], "nowhere.json"),
        (["--write_costs=costs.json", "--width=4"], "--width"),
        (["--write_costs=costs.json", "--interactions=4"], "--interactions"),
        (["--write_costs=costs.json", "--bptt_windows=4"], "--bptt_windows"),
        (["--write_costs=costs.json", "--config=a.py"], "--config"),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments: list[str], named: str, capsys: pytest.CaptureFixture) -> None:
    assert recurrence_speed.run(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert named in printed.err
    assert not printed.out


def test_lists_are_extended_by_commas_and_by_repetition() -> None:
    options, _ = recurrence_speed.parse(["--width=4,8", "--width=16", "--dtype=float32,bfloat16"])
    assert options.width == [4, 8, 16]
    assert options.dtype == ["float32", "bfloat16"]
    with pytest.raises(UserError):
        recurrence_speed.parse(["--width="])


def test_rows_and_parts_reach_the_table_and_the_json(
    quick, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    file, trace = tmp_path / "profile.json", tmp_path / "trace"
    arguments = ["--interactions=300", "--state_size=4", "--feature_size=3", "--repeats=1", "--width=4", "--seed=1"]
    others = ["--implementations=critical_path", f"--json={file}", f"--trace={trace}"]
    assert recurrence_speed.run([*arguments, *others]) == 0
    profile = json.loads(file.read_text())
    (ours,) = profile["rows"]
    assert (ours["implementation"], ours["width"]) == ("critical_path", 4)
    assert ours["bound"] <= ours["steps"] < 300
    assert ours["step_us"] == pytest.approx(1e6 * 300 / ours["forward_per_second"] / ours["steps"])
    assert list(profile["parts"]) == ["projection", "forward scan", "backward scan", "weight gradients", "update"]
    assert profile["peak_bytes"] > 10**7
    assert any(path.is_file() for path in trace.rglob("*"))
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("critical_path", *profile["parts"]))


def test_the_width_is_the_cheapest_by_the_table_of_costs(
    quick, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    asked: list[list[int]] = []
    monkeypatch.setattr(kernels, "rows", lambda case, names, widths, dtypes, count: asked.append(list(widths)) or [])
    step_costs.write(tmp_path / "costs.json", "cpu", "by hand", {4: StepCosts((1, 6, 300), (1.0, 1.5, 900.0))})
    arguments = ["--interactions=300", "--state_size=4", "--implementations=t_batch"]
    assert recurrence_speed.run([*arguments, f"--costs={tmp_path / 'costs.json'}"]) == 0
    assert asked == [[6, 3, 12]]
    assert "by hand" in capsys.readouterr().out


def test_costs_are_measured_and_written(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "LANES", 64)
    monkeypatch.setattr(measured, "FEWEST_STEPS", 4)
    monkeypatch.setattr(measured, "WIDTHS", (1, 8))
    file = tmp_path / "costs.json"
    assert recurrence_speed.run([f"--write_costs={file}", "--state_size=4"]) == 0
    found = step_costs.load("cpu", "cpu", 4, file)
    assert found.step.widths == (1, 8)
    assert "measured on cpu" in found.source


@pytest.mark.parametrize("width", [1, 8, 1024])
def test_every_step_of_the_stream_of_costs_is_full(width: int) -> None:
    turns = measured.stream(width)
    packed = schedule.build_schedule(turns.user, turns.item, width)
    assert (packed.steps * width, packed.fill) == (len(turns), 1.0)


def test_peer_rows_reach_the_table_and_the_json(quick, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed: no peer to run")
    file = tmp_path / "profile.json"
    arguments = ["--interactions=60", "--state_size=4", "--feature_size=3", "--peer=torch", "--repeats=1", "--width=2"]
    assert recurrence_speed.run([*arguments, "--implementations=sequential", f"--json={file}"]) == 0
    profile = json.loads(file.read_text())
    names = [row["implementation"] for row in profile["rows"] if row["framework"] == "torch"]
    assert names == ["sequential", "t_batch_table", "t_batch_compact"]
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)
    assert "60 interactions, 6 users, 3 items" in printed

"""The tool as a person runs it."""

import json
import pathlib
import subprocess
import sys

import pytest

from drex_jax.errors import UserError
from drex_jax.profiling import command, peaks

TOOL = pathlib.Path(__file__).parents[2] / "tools" / "profile.py"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "measure", lambda: peaks.Peaks(1e11, 1e10))


def test_the_script_does_not_hide_the_standard_module() -> None:
    code = f"import runpy, sys; sys.path.insert(0, {str(TOOL.parent)!r}); sys.argv = ['profile.py', '--help']\n"
    code += f"try: runpy.run_path({str(TOOL)!r}, run_name='__main__')\nfinally: import cProfile"
    for arguments in ([str(TOOL), "--help"], ["-c", code]):
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "--item_skew" in done.stdout


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
    ],
)
def test_a_mistake_is_told_in_one_line(arguments: list[str], named: str, capsys: pytest.CaptureFixture) -> None:
    assert command.run(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert named in printed.err
    assert not printed.out


def test_lists_are_extended_by_commas_and_by_repetition() -> None:
    options, _ = command.parse(["--width=4,8", "--width=16", "--dtype=float32,bfloat16"])
    assert options.width == [4, 8, 16]
    assert options.dtype == ["float32", "bfloat16"]
    with pytest.raises(UserError):
        command.parse(["--width="])


def test_peer_rows_reach_the_table_and_the_json(quick, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed: no peer to run")
    file = tmp_path / "profile.json"
    arguments = ["--interactions=60", "--state_size=4", "--feature_size=3", "--peer=torch", "--repeats=1"]
    assert command.run([*arguments, f"--json={file}"]) == 0
    profile = json.loads(file.read_text())
    names = [row["implementation"] for row in profile["rows"] if row["framework"] == "torch"]
    assert names == ["sequential", "t_batch_table", "t_batch_compact"]
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)
    assert "60 interactions, 6 users, 3 items" in printed

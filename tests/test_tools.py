"""The tools and the subcommands as a person runs them, but in this process, which has imported what they need."""

import contextlib
import pathlib
import runpy
import subprocess
import sys

import numpy as np
import pytest

from drex_jax import main
from drex_jax.cli.subcommands import SUBCOMMANDS

ROOT = pathlib.Path(__file__).parents[1]
TOOLS = ROOT / "tools"
DOORS = sorted(path for path in TOOLS.glob("*.py") if path.stem != "__init__")
BENCHMARKS = sorted(path.stem for path in (TOOLS / "benchmarks").glob("*.py") if "__main__" in path.read_text())
COMMANDS = [name for name in BENCHMARKS if name != "ranking_worker"]  # which a command starts


def run_door(tool: pathlib.Path, flag: str, monkeypatch: pytest.MonkeyPatch) -> object:
    """Run a file of tools/ as a script and return its exit status."""
    monkeypatch.setattr(sys, "argv", [str(tool), flag])
    monkeypatch.setattr(sys, "path", [str(tool.parent), *sys.path])  # as for a script
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(tool), run_name="__main__")
    assert str(TOOLS) not in sys.path
    return ended.value.code


@pytest.mark.parametrize("tool", DOORS, ids=lambda tool: tool.stem)
def test_door_explains_itself(
    tool: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_door(tool, "--help", monkeypatch) == 0
    assert len(capsys.readouterr().out) > 200
    assert len(tool.read_text().splitlines()) <= 12


def test_door_does_not_hide_the_standard_module(tmp_path: pathlib.Path) -> None:
    door = str(TOOLS / "profile.py")
    code = f"import runpy, sys; sys.argv = ['profile.py', '--help']; sys.path.insert(0, {str(TOOLS)!r})\n"
    code += f"try: runpy.run_path({door!r}, run_name='__main__')\nfinally: import cProfile"
    for arguments in ([door, "--help"], ["-P", door, "--help"], ["-c", code]):
        command = [sys.executable, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env={})
        assert done.returncode == 0, done.stderr
        assert "--item_skew" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_benchmark_explains_itself(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(TOOLS / "benchmarks" / f"{name}.py"), run_name="__main__")
    assert ended.value.code == 0
    assert f"python -m tools.benchmarks.{name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["keyword_precision", "recommender_speed"])
def test_benchmark_without_a_run_says_so(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, f"--workdir={tmp_path}"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(TOOLS / "benchmarks" / f"{name}.py"), run_name="__main__")
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert str(tmp_path) in err


@pytest.mark.parametrize("name", ["keywords", "faithfulness", "leaks"])
def test_subcommand_without_a_run_says_so(
    name: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["drex", name, f"--workdir={tmp_path}"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert str(tmp_path) in err


def test_help_names_the_subcommands_and_each_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["drex", "--help"]) == 0
    printed = capsys.readouterr().out
    for name, subcommand in SUBCOMMANDS.items():
        assert f"drex {name}" in printed
        assert subcommand.summary in printed
        with contextlib.suppress(SystemExit):
            main.run(["drex", name, "--help"])
        assert f"drex {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_mistake_in_a_subcommand_is_one_line_without_jax(name: str) -> None:
    code = "import sys; from drex_jax import main; status = main.run(sys.argv); assert 'jax' not in sys.modules; "
    command = [sys.executable, "-c", code + "sys.exit(status)", name, "--moon"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("drex_jax: ")
    assert done.stderr.count("\n") == 1


def test_unknown_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    for name, hint in (("compre", "did you mean compare?"), ("moon", "one of compare tune")):
        assert main.run(["drex", name]) == 2
        assert hint in capsys.readouterr().err


def test_keyword_precision_counts_words_of_true_aspects() -> None:
    from tools.benchmarks import keyword_precision

    words = np.array([[0, 1, 2, 3, -1], [3, 2, 1, 0, 0], [9, 9, 9, 9, 9]])
    aspect_of = np.array([7, 7, 4, -2, 0, 0, 0, 0, 0, 4])
    truth = np.array([[7, 1], [4, 0], [4, 4]])
    assert keyword_precision.precision(words, aspect_of, truth, np.array([0, 1, 2])) == pytest.approx((2 + 1 + 5) / 15)
    assert keyword_precision.precision(words, aspect_of, truth, np.array([1])) == pytest.approx(1 / 5)

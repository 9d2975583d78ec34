"""The tools run as a person runs them."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

TOOLS = pathlib.Path(__file__).parents[1] / "tools"


@pytest.mark.parametrize("tool", sorted(TOOLS.glob("*.py")), ids=lambda tool: tool.stem)
def test_tool_explains_itself(tool: pathlib.Path) -> None:
    done = subprocess.run([sys.executable, str(tool), "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert tool.stem in done.stdout


@pytest.mark.parametrize("tool", ["keywords", "keyword_precision", "faithfulness", "recommender_speed"])
def test_tool_without_a_run_says_so(tool: str, tmp_path: pathlib.Path) -> None:
    command = [sys.executable, str(TOOLS / f"{tool}.py"), f"--workdir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert str(tmp_path) in done.stderr


def test_keyword_precision_counts_words_of_true_aspects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOOLS)
    import keyword_precision

    words = np.array([[0, 1, 2, 3, -1], [3, 2, 1, 0, 0], [9, 9, 9, 9, 9]])
    aspect_of = np.array([7, 7, 4, -2, 0, 0, 0, 0, 0, 4])
    truth = np.array([[7, 1], [4, 0], [4, 4]])
    assert keyword_precision.precision(words, aspect_of, truth, np.array([0, 1, 2])) == pytest.approx((2 + 1 + 5) / 15)
    assert keyword_precision.precision(words, aspect_of, truth, np.array([1])) == pytest.approx(1 / 5)

"""The tools run as a person runs them, but in this process, which has imported what they need."""

import pathlib
import runpy
import sys

import numpy as np
import pytest

TOOLS = pathlib.Path(__file__).parents[1] / "tools"


def run(tool: pathlib.Path, flag: str, monkeypatch: pytest.MonkeyPatch) -> object:
    """The exit status."""
    monkeypatch.setattr(sys, "argv", [str(tool), flag])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(tool), run_name="__main__")
    return ended.value.code


@pytest.mark.parametrize("tool", sorted(TOOLS.glob("*.py")), ids=lambda tool: tool.stem)
def test_tool_explains_itself(
    tool: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tool, "--help", monkeypatch) == 0
    assert tool.stem in capsys.readouterr().out


@pytest.mark.parametrize("tool", ["keywords", "keyword_precision", "faithfulness", "recommender_speed"])
def test_tool_without_a_run_says_so(
    tool: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(TOOLS / f"{tool}.py", f"--workdir={tmp_path}", monkeypatch) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert str(tmp_path) in err


def test_keyword_precision_counts_words_of_true_aspects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOOLS)
    import keyword_precision

    words = np.array([[0, 1, 2, 3, -1], [3, 2, 1, 0, 0], [9, 9, 9, 9, 9]])
    aspect_of = np.array([7, 7, 4, -2, 0, 0, 0, 0, 0, 4])
    truth = np.array([[7, 1], [4, 0], [4, 4]])
    assert keyword_precision.precision(words, aspect_of, truth, np.array([0, 1, 2])) == pytest.approx((2 + 1 + 5) / 15)
    assert keyword_precision.precision(words, aspect_of, truth, np.array([1])) == pytest.approx(1 / 5)

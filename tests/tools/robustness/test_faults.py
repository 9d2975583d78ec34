"""Run one trial of every fault on one model (--thorough: on all models); tools/faults.py runs the full suite."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tools.robustness.faults import small, trials

TOOL = pathlib.Path(__file__).parents[3] / "tools" / "faults.py"


@pytest.mark.parametrize("models", [["bpr"], pytest.param(small.MODELS, marks=pytest.mark.thorough)])
def test_one_trial_of_every_fault(models: Sequence[str]) -> None:
    command = [sys.executable, str(TOOL), "--trials=1", "--models", *models]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:]]
    assert [row[:2] for row in rows] == [list(promise) for promise in trials.PROMISES.values()]
    assert all(row[2:4] == ["1", "0"] or "mounts are refused" in row[2] for row in rows), rows


def test_every_fault_has_its_promise() -> None:
    assert trials.PROMISES.keys() == trials.TRIALS.keys()

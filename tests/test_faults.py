"""The fault suite at one trial of its cheapest fault (--thorough: of every fault); tools/faults.py runs it in full."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from drex_jax.faults import trials

TOOL = pathlib.Path(__file__).parents[1] / "tools" / "faults.py"
CHEAP = "update"  # needs no training


def injected(*faults: str) -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL), "--trials=1", "--faults", *faults], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:]]
    assert [row[:4] for row in rows] == [[*trials.PROMISES[name], "1", "0"] for name in faults]


def test_one_trial_of_the_cheapest_fault() -> None:
    injected(CHEAP)


@pytest.mark.thorough
def test_one_trial_of_every_other_fault() -> None:
    injected(*(name for name in trials.TRIALS if name != CHEAP))


def test_every_fault_has_its_promise() -> None:
    assert trials.PROMISES.keys() == trials.TRIALS.keys()

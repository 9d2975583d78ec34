"""Optuna proposes different settings inside the space, the same ones after a stop, and better ones than chance."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from drex_jax.common.errors import UserError
from drex_jax.runs.selection import Selection
from drex_jax.training.search import Trial
from drex_jax.training.settings import Settings, base, changed, settings_of
from drex_jax.training.tpe import Proposer

RANGE = "train.learning_rate=1e-4..1e-1"


def configured(*lines: str, **tune: Any) -> Settings:
    config: Any = base()
    config.model.name = "crane"
    config.train.selection = "ndcg@10"
    config.tune.update(space=lines, search="tpe", **tune)
    return settings_of(config)


def searched(config: Settings, value: Callable[[Any], float | None], trials: list[Trial] | None = None) -> list[Trial]:
    """Run a search in which `value` gives the value of a trial; None is a failed trial."""
    proposer, trials = Proposer(config), list(trials or ())
    while len(trials) < proposer.count:
        proposed = proposer(trials)
        if proposed is None:
            break
        got = value(proposed)
        selection = None if got is None else Selection("ndcg@10", got, 1)
        trials.append(Trial(len(trials), proposed, selection, "failed" if got is None else None, {}))
    return trials


def peak(settings: Any) -> float | None:
    """Return a value that is highest at the rate 3e-2; rates above 8e-2 fail."""
    rate = settings["train.learning_rate"]
    return None if rate > 8e-2 else -abs(math.log10(rate) - math.log10(3e-2))


def test_a_stopped_search_proposes_the_same() -> None:
    config = configured(RANGE, "ranker.layers=1,2,3", "crane.leave_one_out=false,true", trials=30)
    whole = searched(config, peak)
    assert searched(config, peak, whole[:17]) == whole
    assert searched(changed(config, {"seed": 1}), peak)[1:] != whole[1:]


def test_it_starts_with_the_settings_as_they_are_and_learns_from_the_trials() -> None:
    config = configured(RANGE, trials=40)
    rates = [trial.constants["train.learning_rate"] for trial in searched(config, peak)]
    assert rates[0] == config.train.learning_rate
    assert len(set(rates)) == 40
    assert all(1e-4 <= rate <= 1e-1 and float(f"{rate:.4g}") == rate for rate in rates)
    near = sum(1e-2 <= rate <= 8e-2 for rate in rates[20:])
    assert near > 12  # about 6 of 20 at random


def test_a_small_space_is_used_up_and_settings_outside_it_come_first() -> None:
    config = configured("ranker.layers=4,5", "crane.leave_one_out=false,true")
    assert Proposer(config).count == 5
    found = [tuple(trial.constants.values()) for trial in searched(config, lambda settings: 0.5)]
    assert found[0] == (2, True)
    assert sorted(found[1:]) == [(4, False), (4, True), (5, False), (5, True)]


def test_settings_that_are_not_valid_together_are_not_proposed() -> None:
    config = configured("model.rating_weight=0,1", "model.ranking_weight=0,1")
    found = [tuple(trial.constants.values()) for trial in searched(config, lambda settings: 0.5)]
    assert (0.0, 0.0) not in found
    assert len(found) == 3


def test_optuna_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys, drex_jax.training.tune; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[tune\]'"):
        Proposer(configured(RANGE))

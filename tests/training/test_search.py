"""Trials with a fake training are run, stored, read back and selected as promised."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import pytest

from drex_jax.common.errors import DivergedError, Stopped, UserError
from drex_jax.runs.selection import Selection
from drex_jax.training import loop
from drex_jax.training.search import Propose, in_order, search_trials


class Training:
    """A fake training: candidate `x` gets `values[x]`, or raises it if it is an exception; `asked` lists the calls."""

    def __init__(self, values: Mapping[float, Any]):
        self.values = dict(values)
        self.asked: list[float] = []

    def __call__(self, folder: pathlib.Path, constants: Mapping[str, Any]) -> loop.Fitted:
        self.asked.append(constants["x"])
        (folder / "checkpoints" / "7").mkdir(parents=True, exist_ok=True)
        (folder / "metrics.jsonl").write_text("{}\n")
        value = self.values[constants["x"]]
        if isinstance(value, Exception):
            raise value
        return loop.Fitted({}, Selection("ndcg@5", value, 3), {"train_seconds": 1.5})


def candidates(*values: float) -> tuple[int, Propose]:
    return len(values), in_order([{"x": value} for value in values])


def diverged(step: int) -> UserError:
    return DivergedError(f"the loss is not finite at step {step} (loss=nan)")


@pytest.mark.parametrize(("lower", "expected"), [(False, 1), (True, 0)])
def test_the_best_and_of_equals_the_earlier(tmp_path: pathlib.Path, lower: bool, expected: int) -> None:
    training = Training({1: 0.2, 2: 0.5, 3: 0.5, 4: 0.2})
    trials, best = search_trials(tmp_path, *candidates(1, 2, 3, 4), training, lower_is_better=lower)
    assert best == trials[expected]
    assert training.asked == [1, 2, 3, 4]
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert trials[1].selection == Selection("ndcg@5", 0.5, 3)
    assert trials[1].timing == {"train_seconds": 1.5}
    for number, trial in enumerate(trials):
        assert sorted(path.name for path in (tmp_path / str(number)).iterdir()) == ["metrics.jsonl", "trial.json"]
        record = json.loads((tmp_path / str(number) / "trial.json").read_text())
        assert record["constants"] == trial.constants
        assert "test" not in record


def test_stopped_search_goes_on_where_it_was(tmp_path: pathlib.Path) -> None:
    training = Training({1: 0.2, 2: Stopped("stopped by SIGTERM"), 3: 0.1})
    with pytest.raises(Stopped):
        search_trials(tmp_path, *candidates(1, 2, 3), training, lower_is_better=False)
    assert (tmp_path / "1" / "checkpoints").is_dir()  # the trial resumes from it
    training.values[2] = 0.3
    trials, best = search_trials(tmp_path, *candidates(1, 2, 3), training, lower_is_better=False)
    assert training.asked == [1, 2, 2, 3]
    assert best == trials[1]
    (tmp_path / "2" / "checkpoints").mkdir()  # as if killed after writing the record, before removing the checkpoints
    assert search_trials(tmp_path, *candidates(1, 2, 3), training, lower_is_better=False) == (trials, best)
    assert training.asked == [1, 2, 2, 3]
    assert not (tmp_path / "2" / "checkpoints").exists()


def test_diverged_trial_is_kept_as_failed(tmp_path: pathlib.Path) -> None:
    training = Training({1: diverged(7), 2: float("nan"), 3: 0.1})
    trials, best = search_trials(tmp_path, *candidates(1, 2, 3), training, lower_is_better=False)
    assert best == trials[2]
    assert [trial.selection is None for trial in trials] == [True, True, False]
    assert trials[0].failure == "the loss is not finite at step 7 (loss=nan)"
    assert trials[1].failure == "validation ndcg@5 is nan"
    assert trials[2].failure is None
    assert search_trials(tmp_path, *candidates(1, 2, 3), training, lower_is_better=False) == (trials, best)
    assert training.asked == [1, 2, 3]


def test_all_failed_is_an_error(tmp_path: pathlib.Path) -> None:
    training = Training({1: diverged(7), 2: diverged(8)})
    with pytest.raises(UserError, match="all 2 trials failed; the first: the loss is not finite at step 7"):
        search_trials(tmp_path, *candidates(1, 2), training, lower_is_better=False)


def test_other_mistakes_end_the_search_and_leave_no_record(tmp_path: pathlib.Path) -> None:
    training = Training({1: UserError("validation has no such metric"), 2: 0.1})
    with pytest.raises(UserError, match="no such metric"):
        search_trials(tmp_path, *candidates(1, 2), training, lower_is_better=False)
    assert training.asked == [1]
    assert not (tmp_path / "0" / "trial.json").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"constants": {"x": 9}, "selection": null}', r"0/trial.json is of other settings \(x=9\) than now \(x=1\)"),
        ('{"constants": {"x": 1}, "selection": {"value": 1}}', r"0/trial.json: damaged"),
        ('{"constants": {"x": 1}}', r"0/trial.json: damaged"),
        ('{"constants"', r"0/trial.json: damaged"),
    ],
)
def test_damaged_or_foreign_trial_is_named(tmp_path: pathlib.Path, text: str, message: str) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "trial.json").write_text(text)
    with pytest.raises(UserError, match=message):
        search_trials(tmp_path, *candidates(1, 2), Training({1: 0.1, 2: 0.2}), lower_is_better=False)

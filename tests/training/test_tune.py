"""Search settings with real training on tiny synthetic data, also by the tool."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from drex_jax import main
from drex_jax.common.errors import Stopped, UserError
from drex_jax.evaluation.evaluator import Evaluator
from drex_jax.runs.selection import Selection
from drex_jax.training import experiment, loop, tune
from drex_jax.training.search import Trial
from drex_jax.training.settings import base, settings_of

TOOL = pathlib.Path(__file__).parents[2] / "tools" / "tune.py"


def tiny(*space: str, **tuning: Any) -> Any:
    settings: Any = base()
    settings.data.synthetic.update(num_interactions=400, num_users=12, num_items=10, seed=1)
    settings.text.enabled = False
    settings.model.name = "bpr"
    settings.ranker.update(size=3, batch_size=32)
    settings.train.update(epochs=3, bptt_windows=1, warmup_steps=0, clip_norm=0.0, selection="ndcg@5")
    settings.devices.count = 1
    settings.baselines = ()
    settings.tune.update(space=space, **tuning)
    return settings


def grid() -> Any:
    """Return a grid of four trials: as configured, another rate, another size at that rate, and a diverging one."""
    lines = "train.learning_rate=1e-2,1e30", "ranker.size=3,4"
    return tiny(*lines, search="grid", trials=4)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, tune.Tuned]:
    """Run a search that is stopped in its second trial and resumed; it never evaluates test, and reads data once."""
    workdir = tmp_path_factory.mktemp("search")
    true_fit, calls = loop.fit, []

    def stopped_once(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise Stopped("stopped by SIGTERM")
        return true_fit(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluator, "evaluate_test", None)
        patch.setattr(loop, "fit", stopped_once)
        with pytest.raises(Stopped):
            tune.search_settings(settings_of(grid()), workdir)
        assert (workdir / "trials" / "0" / "trial.json").exists()
        patch.setattr("drex_jax.runs.dataset.load_interactions", None)
        found = tune.search_settings(settings_of(grid()), workdir)
    assert len(calls) == 5
    return workdir, found


def test_trials_are_kept_and_the_best_is_the_highest(tuned: tuple[pathlib.Path, tune.Tuned]) -> None:
    workdir, found = tuned
    rates = [trial.constants["train.learning_rate"] for trial in found.trials]
    assert rates == [3e-3, 1e-2, 1e-2, 1e30]
    assert [trial.constants["ranker.size"] for trial in found.trials] == [3, 3, 4, 3]
    assert found.notice == "tune.trials=4 leaves 1 of 5 settings out"
    *done, failed = found.trials
    values = [trial.selection.value for trial in done if trial.selection]
    assert len(set(values)) > 1
    assert found.best == done[values.index(max(values))]
    assert failed.selection is None
    assert failed.failure is not None
    assert failed.failure.startswith(("the loss is not finite", "validation ndcg@5 is"))
    for trial in found.trials:
        folder = workdir / "trials" / str(trial.number)
        files = {path.name for path in folder.iterdir()}
        assert files == {"config.json", "metrics.jsonl", "execution.json", "trial.json"}
        assert json.loads((folder / "config.json").read_text())["ranker"]["size"] == (trial.constants["ranker.size"])
        assert "test" not in (folder / "trial.json").read_text()
    assert not (workdir / "results.json").exists()


def test_a_search_by_tpe_that_was_stopped_goes_on(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny("train.learning_rate=1e-3..1e-1", search="tpe", trials=3)
    config.train.epochs = 1
    whole = tune.search_settings(settings_of(config), tmp_path / "whole")
    assert len({trial.constants["train.learning_rate"] for trial in whole.trials}) == 3
    true_fit, calls = loop.fit, []

    def stopped_once(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            raise Stopped("stopped by SIGTERM")
        return true_fit(*arguments)

    monkeypatch.setattr(loop, "fit", stopped_once)
    with pytest.raises(Stopped):
        tune.search_settings(settings_of(config), tmp_path / "stopped")
    continued = tune.search_settings(settings_of(config), tmp_path / "stopped")
    assert len(calls) == 4
    assert [(trial.constants, trial.selection) for trial in continued.trials] == [
        (trial.constants, trial.selection) for trial in whole.trials
    ]


def test_best_settings_give_the_same_selection_in_a_run(
    tuned: tuple[pathlib.Path, tune.Tuned], tmp_path: pathlib.Path
) -> None:
    _, found = tuned
    settings = grid()
    settings.update_from_flattened_dict(dict(found.best.constants))
    assert found.best.selection is not None
    results = experiment.train(settings_of(settings), tmp_path)
    assert results["selection"]["epoch"] == found.best.selection.epoch
    assert results["selection"]["value"] == pytest.approx(found.best.selection.value, rel=1e-6)


def test_another_configuration_in_the_same_folder_is_refused(tuned: tuple[pathlib.Path, tune.Tuned]) -> None:
    workdir, _ = tuned
    other = grid()
    other.tune.space = ("train.learning_rate=1e-2,1e-3",)
    with pytest.raises(UserError, match=r"a search of another space .*1e30") as caught:
        tune.search_settings(settings_of(other), workdir)
    assert "\n" not in str(caught.value)


def test_tool_prints_what_was_found(tuned: tuple[pathlib.Path, tune.Tuned]) -> None:
    workdir, found = tuned
    command = [sys.executable, str(TOOL), f"--workdir={workdir}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert tune.format_tuned(found) in done.stdout
    assert tune.overrides(found.best) in done.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config=experiments/quickstart.py", "--config.tune.space=()"], "tune.space is empty"),
        (["--config=experiments/quickstart.py", "--mode=evaluate"], "holds no run"),
        (["--config=experiments/quickstart.py", "--foo"], "unknown flag --foo"),
        ([], "neither --config nor --workdir is given"),
    ],
)
def test_tool_tells_mistakes_in_one_line(
    flags: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(TOOL.parents[1])
    assert main.run(["drex", "tune", *flags]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err


def test_table_has_the_best_first_and_failures_last() -> None:
    def trial(number: int, value: float | None, **constants: Any) -> Trial:
        selection = None if value is None else Selection("recall@20", value, number + 1)
        constants = {name.replace("__", "."): constant for name, constant in constants.items()}
        return Trial(number, constants, selection, "the loss is nan" if value is None else None, {"train_seconds": 2.0})

    trials = [
        trial(0, 0.05, train__learning_rate=1e-3, crane__user_profiles=True),
        trial(1, None, train__learning_rate=9.0, crane__user_profiles=True),
        trial(2, 0.07, train__learning_rate=2e-5, crane__user_profiles=False),
        trial(3, 0.07, train__learning_rate=3e-3, crane__user_profiles=False),
    ]
    found = tune.Tuned(trials, trials[2], "recall@20", "tune.trials=4 leaves 2 of 6 settings out")
    lines = tune.format_tuned(found).splitlines()
    assert lines[0].split() == [
        "trial", "recall@20", "epoch", "seconds", "train.learning_rate", "crane.user_profiles"
    ]  # fmt: skip
    assert [line.split()[0] for line in lines[1:5]] == ["2", "3", "0", "1"]
    assert lines[1].split() == ["2", "0.0700", "3", "2.0", "2e-05", "False"]
    assert lines[4].split()[1] == "failed"
    assert lines[5] == "trial 1 failed: the loss is nan"
    assert lines[6] == "tune.trials=4 leaves 2 of 6 settings out"
    assert lines[-1] == "--config.train.learning_rate=2e-05 --config.crane.user_profiles=false"

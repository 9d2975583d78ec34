"""The model of tests/models/own_model.py as a user runs it: trained, stopped, resumed, evaluated, asked, updated."""

from __future__ import annotations

import json
import pathlib
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from drex_jax import main
from drex_jax.common.errors import UserError
from drex_jax.devices.mesh import Devices
from drex_jax.models.registry import entry_of
from drex_jax.training.settings import Settings, base, read_settings, settings_of

OWN = pathlib.Path(__file__).parent / "models" / "own_model.py"
NAME = "tests.models.own_model:PopularFactors"
EXPERIMENT = f"""
from drex_jax.training.settings import base

def get_config():
    config = base("{NAME}")
    config.own.size = 4
    config.data.synthetic.update(num_interactions=300, num_users=20, num_items=15, seed=1)
    config.text.enabled = False
    config.baselines = ("popularity",)
    config.train.update(epochs=3, selection="ndcg@5", learning_rate=0.01)
    config.evaluate.cutoffs = (5,)
    config.devices.update(count=1, mapping="none")
    return config
"""


def stop_at_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send SIGTERM when the training program runs for the first time."""
    compile_for, calls = Devices.compile_for, []

    def interrupted(self: Devices, *arguments: Any, **named: Any) -> Callable[..., Any]:
        compiled = compile_for(self, *arguments, **named)

        def step(*arguments: Any) -> Any:
            calls.append(arguments)
            if len(calls) == 1:
                signal.raise_signal(signal.SIGTERM)
            return compiled(*arguments)

        return step

    monkeypatch.setattr(Devices, "compile_for", interrupted)


def test_a_run_of_it(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    experiment = tmp_path / "own.py"
    experiment.write_text(EXPERIMENT)
    whole, stopped = (tmp_path / name for name in ("whole", "stopped"))

    def command(workdir: pathlib.Path, *flags: str) -> int:
        return main.run(["main", f"--workdir={workdir}", *flags])

    def asked(workdir: pathlib.Path, *flags: str) -> Any:
        capsys.readouterr()
        assert command(workdir, *flags, "--format=json") == 0
        return json.loads(capsys.readouterr().out)

    assert command(whole, f"--config={experiment}") == 0
    with monkeypatch.context() as patch:
        stop_at_first_step(patch)
        assert command(stopped, f"--config={experiment}") == 75
    assert not (stopped / "results.json").exists()
    assert command(stopped, f"--config={experiment}") == 0
    results, resumed = (json.loads((run / "results.json").read_text()) for run in (whole, stopped))
    assert resumed["timing"]["resumed_from"]
    assert resumed["test"] == results["test"]
    assert set(results["test"]) == {"ranking"}
    assert results["model"] == NAME
    assert read_settings(whole / "config.json").own.size == 4  # pyright: ignore[reportAttributeAccessIssue]

    capsys.readouterr()
    assert command(whole, "--mode=evaluate") == 0
    assert f"{results['test']['ranking']['ndcg@5']:.4f}" in capsys.readouterr().out
    lists = asked(whole, "--mode=recommend", "--user=fresh", "--k=15")["recommendations"]
    rows = [{"user": "fresh", "item": each["item"], "timestamp": 3e9 + k} for k, each in enumerate(lists[3:6])]
    rows.append({"user": "user001", "item": "new", "timestamp": 3e9 + 9})
    news = tmp_path / "news.jsonl"
    news.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert asked(whole, "--mode=update", f"--interactions={news}")["applied"] == 4
    after = asked(whole, "--mode=recommend", "--user=fresh", "--k=16")["recommendations"]
    assert {each["item"] for each in lists[3:6]}.isdisjoint(each["item"] for each in after)
    assert [each["score"] for each in after] != [each["score"] for each in lists if each in after]
    why = asked(whole, "--mode=explain", "--user=fresh", f"--item={after[0]['item']}")
    assert why["num_items"] == 16
    assert {each["item"] for each in why["user_interactions"]} == {row["item"] for row in rows[:3]}
    assert command(whole, "--mode=report") == 0
    assert NAME in (whole / "report.html").read_text()


def test_its_file_is_short_and_the_one_that_is_shown() -> None:
    text = OWN.read_text()
    assert len(text.splitlines()) <= 80
    assert text in (OWN.parents[2] / "CONTRIBUTING.md").read_text()


def test_its_settings_are_a_group_of_the_configuration() -> None:
    config: Any = base(NAME)
    config.own.size = 8
    config.train.selection = "ndcg@5"
    settings = settings_of(config)
    assert isinstance(settings, Settings)
    assert entry_of(NAME).groups_of(settings)[0].size == 8
    config.own.size = 0
    with pytest.raises(UserError, match=r"own.size is 0; it must be a whole number"):
        settings_of(config)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.file:Model", "cannot be imported: No module named 'nowhere'"),
        ("tests.models.own_model:Nothing", r"cannot be imported: .* has no attribute 'Nothing'"),
        ("tests.models.own_model:PopularFactorsSettings", "is not a subclass of drex_jax.models.protocol.Model"),
        ("nothing", "or a model of your own such as my_package.my_file:MyModel"),
    ],
)
def test_a_name_of_no_model(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        base(name)


def test_a_run_directory_brings_no_model_of_its_own(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run directory need not be trusted: what it names is not imported unless the user says so."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    config = base(NAME).to_dict()
    config["model"]["name"] = "evil:Model"
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="import its module first, or set DREX_JAX_OWN_MODEL=evil:Model"):
        read_settings(run / "config.json")
    monkeypatch.setenv("DREX_JAX_OWN_MODEL", "evil:Model")
    with pytest.raises(SystemExit, match="imported"):
        read_settings(run / "config.json")


def test_new_pairs_move_the_prior_and_leave_known_factors() -> None:
    from drex_jax.models.pairwise import TrainPairs, final_rows
    from tests.models.own_model import PopularFactors, PopularFactorsSettings

    user, item = np.array([0, 0, 1]), np.array([0, 1, 1])
    model, constants = PopularFactors.over(TrainPairs.of(user, item, 2, 2, {}), PopularFactorsSettings(size=3))
    params = {"user": np.ones((2, 3)), "item": np.ones((2, 3)), "weight": np.ones(1)}
    grown, more = PopularFactors.over(
        TrainPairs.of(np.append(user, 2), np.append(item, 0), 3, 2, {}), PopularFactorsSettings(size=3)
    )
    before, after = final_rows(model, params, constants), final_rows(grown, grown.grown(params, model.sizes), more)
    np.testing.assert_array_equal(after.user[:2], before.user)
    np.testing.assert_array_equal(after.user[2], [0, 0, 0, 1])
    np.testing.assert_allclose(after.item[:, 3], np.log1p([2, 2]), rtol=1e-6)
